"""`limbeck cache`: storing teacher outputs, and what the cache holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from limbeck.cli import complete
from limbeck.cli.interrupts import resumable
from limbeck.cli.options import (
    Accelerator,
    DataRoot,
    Devices,
    Overrides,
    Quiet,
    Threads,
    bytes_of,
    count,
    root_of,
    seconds_of,
    use_threads,
)
from limbeck.errors import RequestError


class WithBareWhere(TyperCommand):
    """A command whose --where asks, without a value, for the folder, and with a value gives one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        following = [*args[1:], "--"][: len(args)]
        bare = [word == "--where" and after.startswith("-") for word, after in zip(args, following, strict=True)]
        plain = [f"{word}=" if alone else word for word, alone in zip(args, bare, strict=True)]
        return super().parse_args(ctx, plain)


Recipe = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECIPE]", help="A packaged recipe's name, or a YAML file.", autocompletion=complete.recipes
    ),
]
Where = Annotated[
    str | None,
    typer.Option(help="Folder or fsspec address to store in; alone: print limbeck's cache folder."),
]
Views = Annotated[int | None, typer.Option(help="Augmented versions of each sample.", min=1)]
Dtype = Annotated[str | None, typer.Option(help="float16, bfloat16 or float32.")]
TopK = Annotated[int | None, typer.Option(help="Keep only the likeliest classes.", min=1)]
Draws = Annotated[int | None, typer.Option(help="Keep so many classes drawn from the teacher's.", min=1)]
Bits = Annotated[int | None, typer.Option(help="Bits of a stored log-probability: 8 to 16, or 32.")]
FromLogprobs = Annotated[
    Path | None, typer.Option(help="Store what a server said: JSON lines with tokens and top_logprobs, or Parquet.")
]
Verify = Annotated[bool, typer.Option("--verify", help="Check what is stored, and ask again about some.")]
List = Annotated[bool, typer.Option("--list", help="List limbeck's cache: teachers and their outputs.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete from limbeck's cache what is not in use.")]
OlderThan = Annotated[str | None, typer.Option(help="With --prune: what was not used for 30d, 12h, 8w.")]
KeepBytes = Annotated[
    str | None, typer.Option(help="With --prune: what was not used for longest, until 10GB are left.")
]
Unreachable = Annotated[
    bool, typer.Option("--unreachable", help="With --prune: what is half written, or of another limbeck.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --prune: only say what would go.")]


def cache(
    recipe: Recipe = None,
    where: Where = None,
    views: Views = None,
    dtype: Dtype = None,
    top_k: TopK = None,
    draws: Draws = None,
    bits: Bits = None,
    from_logprobs: FromLogprobs = None,
    verify: Verify = False,
    data_root: DataRoot = None,
    set_: Overrides = None,
    accelerator: Accelerator = "auto",
    devices: Devices = "1",
    threads: Threads = None,
    quiet: Quiet = False,
    list_: List = False,
    prune: Prune = False,
    older_than: OlderThan = None,
    keep_bytes: KeepBytes = None,
    unreachable: Unreachable = False,
    dry_run: DryRun = False,
) -> None:
    """Precompute the teacher's outputs for every sample, and store them for all later runs; or list, or prune."""
    if where == "":
        if recipe is not None or list_ or prune:
            raise RequestError("--where takes a folder or an address; alone it prints where limbeck's cache is")
        from limbeck.folders import cache_root

        print(cache_root())  # noqa: T201
        return
    use_threads(threads)
    rules = {"older_than": older_than, "keep_bytes": keep_bytes, "unreachable": unreachable, "dry_run": dry_run}
    if not prune and any(rules.values()):
        raise RequestError("--older-than, --keep-bytes, --unreachable and --dry-run belong to --prune")
    if not (list_ or prune):
        if recipe is None:
            raise RequestError("limbeck cache takes a RECIPE whose teacher outputs it stores, or --list, or --prune")
        if from_logprobs is not None:
            if where is None or top_k or draws or views or verify:
                raise RequestError(
                    "--from-logprobs takes --where PLACE, --dtype and --bits, and nothing else of a store"
                )
            _store_given(recipe, from_logprobs, where, dtype, bits, data_root, set_)
            return
        form = {"dtype": dtype, "top_k": top_k, "draws": draws, "bits": bits}
        _store(recipe, where, views, form, verify, data_root, set_, accelerator, devices, quiet)
        return
    if recipe is not None or verify or any(value is not None for value in (where, views, dtype, top_k, draws, bits)):
        raise RequestError("--list and --prune look at all of limbeck's cache, and take no RECIPE, nor options for one")
    if list_ and prune:
        raise RequestError("give either --list or --prune; --prune --dry-run lists what would go")
    _look(None if list_ else rules)


def _store(
    recipe: str,
    where: str | None,
    views: int | None,
    form: Mapping[str, Any],
    verify: bool,
    data_root: Path | None,
    set_: list[str] | None,
    accelerator: str,
    devices: str,
    quiet: bool,
) -> None:
    from limbeck.recipes.read import read

    made = read(recipe, [*(set_ or []), *([f"data.views={views}"] if views else [])])
    from limbeck.cli import stored as show
    from limbeck.engine.devices.fabric import is_first
    from limbeck.runs.machine import Machine
    from limbeck.runs.outputs.beforehand import as_cached, taken_by
    from limbeck.runs.outputs.beforehand import cache as carry_out

    stored = as_cached(made, where=where, **form)
    machine = Machine(accelerator, count(devices), "auto", not quiet)
    root = root_of(data_root, made)
    shown: dict[str, Any] = {} if quiet else {"tell": show.estimate, "after_shard": show.shard}
    with resumable():
        result = carry_out(stored, root=root, machine=machine, check=verify, **shown)
    if is_first():
        show.stored(result, taken_by(made, stored))


def _store_given(
    recipe: str,
    file: Path,
    where: str,
    dtype: str | None,
    bits: int | None,
    data_root: Path | None,
    set_: list[str] | None,
) -> None:
    from limbeck.cli import stored as show
    from limbeck.folders import data_root as default_root
    from limbeck.recipes.read import read
    from limbeck.runs.outputs.from_server import cache_logprobs

    root = data_root or default_root()
    show.given(cache_logprobs(read(recipe, set_ or []), file, where, root=root, dtype=dtype, bits=bits))


def _look(rules: dict[str, Any] | None) -> None:
    from limbeck.cli import stored as show
    from limbeck.runs.cache.content import content, prune

    if rules is None:
        show.listing(content())
        return
    age, size = rules["older_than"], rules["keep_bytes"]
    done = prune(
        older_than=None if age is None else seconds_of(age),
        keep_bytes=None if size is None else bytes_of(size),
        unreachable=rules["unreachable"],
        dry_run=rules["dry_run"],
    )
    show.pruned(done, rules["dry_run"])

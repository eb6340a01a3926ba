"""The options that several commands share, and what their words mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import limbeck
from limbeck.cli import complete
from limbeck.errors import RequestError, reason_of, shown
from limbeck.folders import data_root
from limbeck.notices import tell

if TYPE_CHECKING:
    from limbeck.recipes.schema import Recipe

RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A packaged recipe's name, or a YAML file.", autocompletion=complete.recipes),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the data. Default: the recipe's data.root, $LIMBECK_DATA, or a folder in the cache."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.", autocompletion=complete.keys),
]
LimitSteps = Annotated[
    int | None, typer.Option(help="A trial: train on so many batches an epoch; results say so.", min=1)
]
LimitSamples = Annotated[
    int | None, typer.Option(help="A trial: use at most so many samples of each split; results say so.", min=1)
]
Accelerator = Annotated[
    str,
    typer.Option(help="cpu, cuda, mps or auto.", autocompletion=complete.words("auto", "cpu", "cuda", "mps")),
]
Devices = Annotated[str, typer.Option(help="How many devices, or 'auto'.")]
NumNodes = Annotated[int, typer.Option(help="How many machines.", min=1)]
Strategy = Annotated[
    str,
    typer.Option(
        help="ddp: a whole student on each device; fsdp: sharded; auto; or another of Lightning Fabric.",
        autocompletion=complete.words("auto", "ddp", "fsdp"),
    ),
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Deterministic kernels only.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Threads = Annotated[int | None, typer.Option(help="Threads of one process on the CPU. Default: torch's choice.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; all else goes to stderr.")]


def version(asked: bool) -> None:
    """--version."""
    if asked:
        print(f"limbeck {limbeck.__version__}")  # noqa: T201
        raise typer.Exit


def use_threads(count: int | None) -> None:
    """--threads: how many one operation may use; before any work is done."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def limits(steps: int | None, samples: int | None) -> dict[str, int | None]:
    """--limit-steps and --limit-samples, as the keys of the recipe that they set."""
    return {"data.limit_steps": steps, "data.limit_samples": samples}


def overrides(set_: list[str] | None, given: Mapping[str, Any]) -> list[str]:
    """What changes a recipe: --set, and behind it other options as the keys that they set; None sets nothing."""
    return [*(set_ or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]


def names(text: str) -> list[str]:
    """Comma-separated names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def root_of(given: Path | None, recipe: Recipe, resumed: Path | None = None) -> Path:
    """--data-root: without it the recipe's `data.root`, else where a resumed run had its data, else the usual one."""
    if given is not None or recipe.data.root is not None:
        return given or Path(str(recipe.data.root))
    from limbeck.runs import identity

    return (identity.data_root(resumed) if resumed else None) or data_root()


def count(devices: str) -> int | str:
    """--devices: how many, which ones, or auto."""
    if devices.isdecimal() or devices == "-1":
        return int(devices)
    if devices != "auto" and not all(part.strip().isdecimal() for part in devices.split(",")):
        raise RequestError(f"--devices is a number, comma-separated numbers, or auto, not {shown(devices)}")
    return devices


def loggers(tensorboard: bool, folder: Path) -> list[Any]:
    """--tensorboard."""
    if not tensorboard:
        return []
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    try:
        return [TensorBoardLogger(root_dir=folder, name="tensorboard", version="")]
    except ModuleNotFoundError:
        raise RequestError("--tensorboard needs the extra: pip install 'limbeck[tensorboard]'") from None


def drawn(write: Callable[[Path], Path | None], folder: Path) -> Path | None:
    """A page of what is done and written; where it cannot be drawn, that is said, and nothing fails."""
    try:
        return write(folder)
    except Exception as error:
        tell(f"the page cannot be drawn ({reason_of(error)}); the figures are in {folder}")
        return None


def numbers(text: str) -> list[float]:
    """--thresholds."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise RequestError(f"--thresholds takes comma-separated numbers, such as 0.8,0.9, not {shown(text)}") from None


def whole_numbers(text: str, option: str) -> list[int]:
    """Several numbers of an option such as --batch."""
    parts = names(text)
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise RequestError(f"{option} takes comma-separated whole numbers, such as 1,32, not {shown(text)}")
    return [int(part) for part in parts]


def shape_of(text: str) -> tuple[int, ...]:
    """--input."""
    parts = text.lower().split("x")
    if not all(part.isdecimal() and len(part) < 10 and int(part) for part in parts):
        raise RequestError(f"--input is a shape such as 3x32x32, not {shown(text)}")
    return tuple(int(part) for part in parts)


_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def seconds_of(text: str) -> float:
    """--older-than."""
    number, unit = _measure(text, _SECONDS)
    if number is None:
        raise RequestError(f"--older-than is a time such as 12h, 30d or 8w, not {text[:50]!r}")
    return number * unit


def bytes_of(text: str) -> int:
    """--keep-bytes."""
    number, unit = _measure(text, _BYTES)
    if number is None:
        raise RequestError(f"--keep-bytes is a size such as 500MB or 10GB, not {text[:50]!r}")
    return int(number * unit)


def _measure(text: str, units: Mapping[str, float]) -> tuple[float | None, float]:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z]+)", text.strip())
    known = {unit.lower(): value for unit, value in units.items()}
    if found is None or found[2].lower() not in known:
        return None, 1.0
    return float(found[1]), known[found[2].lower()]

"""A table of tensors by (view, sample), cut into files that are whole or not there.

Each shard is a safetensors file with every tensor for a range of samples in one view. It is read through a memory map,
so that a table larger than the memory costs what is read of it. The place is a folder, or any fsspec address such as
"s3://bucket/signals"; shards from elsewhere are fetched once into a local folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from limbeck.errors import RequestError, RunError
from limbeck.folders import nearest
from limbeck.parts import ENDING, put, sweep

FORMAT = 1
DESCRIPTION = "signals.json"


@dataclass(frozen=True)
class Description:
    """What a table holds.

    Attributes:
        made_of: What the values are a function of, by name: fingerprints of teacher, data, views.
        samples: Number of samples.
        views: Number of views.
        rows: Samples of one shard; the last one may have fewer.
        tensors: For each tensor its dtype, as safetensors names it, and the shape of one sample.
        about: What one must know to read the values, such as the number of classes.
    """

    made_of: Mapping[str, str]
    samples: int
    views: int
    rows: int
    tensors: Mapping[str, tuple[str, list[int]]]
    about: Mapping[str, Any]

    @property
    def shards(self) -> list[tuple[int, int]]:
        """(view, number) of every shard."""
        return [(view, n) for view in range(self.views) for n in range(-(-self.samples // self.rows))]

    def span(self, number: int) -> range:
        """The samples of the shards of this number."""
        return range(number * self.rows, min(self.samples, (number + 1) * self.rows))


class Shards:
    """The shards in one place.

    Args:
        place: A folder, or an fsspec address.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        try:
            self._files, self._root = fsspec.url_to_fs(self.place)
        except (ValueError, ImportError) as error:
            raise RequestError(f"cannot open the place {self.place} of stored signals: {error}") from error
        self._is_local = isinstance(self._files, fsspec.implementations.local.LocalFileSystem)
        self._near: Path | None = None
        self._open: dict[tuple[int, int], dict[str, Tensor]] = {}

    def description(self) -> Description | None:
        """What the table holds; None where there is none.

        Raises:
            RequestError: The description is damaged, or of another format.
        """
        path = f"{self._root}/{DESCRIPTION}"
        if not self._files.exists(path):
            return None
        try:
            content = json.loads(self._files.cat_file(path))
            if content.pop("format") != FORMAT:
                raise RequestError(f"{self.place} holds stored signals of another format; store them anew")
            tensors = {name: (dtype, shape) for name, (dtype, shape) in content.pop("tensors").items()}
            return Description(tensors=tensors, **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RequestError(f"{self.place}/{DESCRIPTION} is damaged; delete it to store the signals anew") from error

    def describe(self, description: Description) -> None:
        """Write what the table will hold."""
        self._write(DESCRIPTION, json.dumps({"format": FORMAT, **asdict(description)}, indent=2).encode())

    def has(self, view: int, number: int) -> bool:
        """Whether a shard is there; then it is whole."""
        return bool(self._files.exists(f"{self._root}/{_name(view, number)}"))

    def write(self, view: int, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a shard, under a temporary name first.

        Raises:
            RunError: It cannot be written.
        """
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._write(_name(view, number), save(plain, metadata={"digest": _digest(plain)}))

    def read(self, view: int, number: int) -> Mapping[str, Tensor]:
        """The tensors of a shard, backed by its file: only what is touched is read.

        Raises:
            RequestError: It is missing or damaged.
        """
        key = (view, number)
        if key not in self._open:
            with self._mapped(view, number) as shard:
                self._open[key] = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - no mapping
        return self._open[key]

    def verify(self, view: int, number: int) -> None:
        """Read a shard through, and compare it with the digest that it was written with.

        Raises:
            RequestError: It is missing, or a byte of it has changed.
        """
        with self._mapped(view, number) as shard:
            digest = (shard.metadata() or {}).get("digest")
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - no mapping
        if _digest(tensors) != digest:
            raise RequestError(
                f"{self.place}/{_name(view, number)} is damaged: its content is not what was written; delete it, and "
                "store the signals again: only what is missing is written"
            )

    def check_writable(self) -> None:
        """Find a place that cannot be written before a teacher is trained for it; one that holds signals can be read.

        Raises:
            RequestError: It is a folder in which nobody can write, and it holds no signals yet.
        """
        there = nearest(Path(self._root)) if self._is_local else None
        if there is None or (there.is_dir() and os.access(there, os.W_OK)):
            return
        if not any(Path(self._root).rglob(DESCRIPTION)):
            raise RequestError(f"{there} cannot be written; choose another place for the teacher's outputs")

    def sweep(self) -> None:
        """Remove what killed processes left half-written; elsewhere than on this machine nobody can tell."""
        if self._is_local:
            sweep(Path(self._root))

    def free_bytes(self) -> int | None:
        """The space that is left in the place; None where that is not known."""
        if not self._is_local:
            return None
        return shutil.disk_usage(nearest(Path(self._root))).free

    def _mapped(self, view: int, number: int) -> Any:
        try:
            return safe_open(self._fetched(view, number), "pt")
        except FileNotFoundError as error:
            raise RequestError(
                f"{self.place}/{_name(view, number)} is missing; store the signals again, which writes what is missing"
            ) from error
        except OSError as error:
            raise RequestError(f"cannot read {self.place}/{_name(view, number)}: {error.strerror or error}") from error
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise RequestError(
                f"{self.place}/{_name(view, number)} is damaged ({str(error).splitlines()[0]}); delete it, and store "
                "the signals again, which writes what is missing"
            ) from error

    def _fetched(self, view: int, number: int) -> str:
        name = _name(view, number)
        if self._is_local:
            return f"{self._root}/{name}"
        if self._near is None:
            self._near = Path(tempfile.mkdtemp(prefix="limbeck-signals-"))
            weakref.finalize(self, shutil.rmtree, self._near, ignore_errors=True)
        here = self._near / name
        if not here.exists():
            here.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{self._root}/{name}", str(here))
        return str(here)

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        try:
            if self._is_local:
                put(Path(path), content)
            else:
                self._upload(path, content)
        except OSError as error:
            raise RunError(
                f"cannot write {self.place}/{name}: {error.strerror or error}; what is written already stays good"
            ) from error

    def _upload(self, path: str, content: bytes) -> None:
        temporary = f"{path}.{secrets.token_hex(4)}{ENDING}"
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(temporary, "wb") as file:
                file.write(content)
            self._files.mv(temporary, path)
        except OSError:
            with suppress(OSError):
                self._files.rm_file(temporary)
            raise


def _name(view: int, number: int) -> str:
    return f"view-{view:04d}/shard-{number:06d}.safetensors"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

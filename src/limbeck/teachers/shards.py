"""A table of tensors by (view, sample), cut into files that are whole or not there.

Each shard is a safetensors file with every tensor for a range of samples in one view. It is read through a memory map,
so that a table larger than the memory costs what is read of it. Before its first read it is compared with the checksum
that it was written with, which holds its content, its place in the table, and what the table was made of; the checksum
is a CRC-32, which finds every changed byte, and is the fastest that Python brings along. The place is a folder, or any
fsspec address such as "s3://bucket/outputs"; shards from elsewhere are fetched once into a local folder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.cached import SimpleCacheFileSystem
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from limbeck.atomic import ENDING, put, sweep
from limbeck.errors import RequestError, RunError
from limbeck.folders import nearest
from limbeck.teachers.description import Description, OtherFormatError

DESCRIPTION = "teacher_outputs.json"
MOST_DESCRIBED = 2**24
"""Bytes of a description, or of what describes a shard's tensors; more is no limbeck's."""
CHUNK = 2**20


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
            raise RequestError(f"cannot open the place {self.place} of stored teacher outputs: {error}") from error
        self._is_local = isinstance(self._files, fsspec.implementations.local.LocalFileSystem)
        self._near: SimpleCacheFileSystem | None = None
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
            if self._files.size(path) > MOST_DESCRIBED:
                raise ValueError("it is too large")
            return Description.from_json(self._files.cat_file(path))
        except OtherFormatError as error:
            raise RequestError(
                f"{self.place} holds teacher outputs of format {error}, which this limbeck does not read; delete it, "
                "or choose another place, and store them anew"
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise RequestError(
                f"{self.place}/{DESCRIPTION} is damaged: its content is not what was written; delete it to store the "
                "teacher outputs anew"
            ) from error

    def describe(self, description: Description) -> None:
        """Write what the table will hold."""
        self._write(DESCRIPTION, description.as_json().encode())

    def has(self, view: int, number: int) -> bool:
        """Whether a shard is there; then it is whole."""
        return bool(self._files.exists(f"{self._root}/{_name(view, number)}"))

    def write(self, table: Description, view: int, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a shard, under a temporary name first.

        Raises:
            RunError: It cannot be written.
        """
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._write(_name(view, number), _sealed(save(plain), _place_in(table, view, number)))

    def read(self, table: Description, view: int, number: int) -> Mapping[str, Tensor]:
        """The tensors of a shard, backed by its file; checked as a whole when they are asked for first.

        Raises:
            RequestError: It is missing or damaged, or belongs to another table.
        """
        key = (view, number)
        if key not in self._open:
            self.verify(table, view, number)
            with self._mapped(view, number) as shard:
                tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - no mapping
            if not _fits(tensors, table, number):
                raise self._unreadable(view, number, ValueError("it holds other tensors than the table"))
            self._open[key] = tensors
        return self._open[key]

    def verify(self, table: Description, view: int, number: int) -> None:
        """Read a shard through, and compare it with the checksum that it was written with.

        Raises:
            RequestError: It is missing, a byte of it has changed, or it belongs to another table.
        """
        try:
            with open(self._fetched(view, number), "rb") as file:
                whole = _is_whole(file, _place_in(table, view, number))
        except (OSError, ValueError, RecursionError) as error:
            raise self._unreadable(view, number, error) from error
        if not whole:
            raise self._unreadable(view, number, ValueError("its content is not what was written"))

    def check_writable(self) -> None:
        """Find a place that cannot be written before a teacher is trained for it; one that holds outputs can be read.

        Raises:
            RequestError: It is a folder in which nobody can write, and it holds no teacher outputs yet.
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
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise self._unreadable(view, number, error) from error

    def _unreadable(self, view: int, number: int, error: Exception) -> RequestError:
        name, reason = f"{self.place}/{_name(view, number)}", str(error).splitlines()[0] if str(error) else "empty"
        again = "store the teacher outputs again, which writes what is missing"
        if isinstance(error, FileNotFoundError):
            return RequestError(f"{name} is missing; {again}")
        if isinstance(error, OSError):
            return RequestError(f"cannot read {name}: {error.strerror or error}")
        return RequestError(f"{name} is damaged ({reason}); delete it, and {again}")

    def _fetched(self, view: int, number: int) -> str:
        """The path of a shard on this machine."""
        path = f"{self._root}/{_name(view, number)}"
        if self._is_local:
            return path
        if self._near is None:  # its own, and in a folder that goes with it: a place may be written anew
            self._near = SimpleCacheFileSystem(fs=self._files, cache_storage="TMP", skip_instance_cache=True)
        with self._near.open(path) as file:
            return str(file.name)

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


def _place_in(table: Description, view: int, number: int) -> bytes:
    """What binds a shard to its place in one table: it is damage if it lies in another."""
    return f"{table.identity} {view} {number}".encode()


def _sealed(content: bytes, place: bytes) -> bytes:
    """A safetensors file with its checksum among its metadata."""
    start = 8 + int.from_bytes(content[:8], "little")
    tensors, data = json.loads(content[8:start]), memoryview(content)[start:]
    header = json.dumps({"__metadata__": {"checksum": _checksum(zlib.crc32(data), tensors, place)}, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([struct.pack("<Q", len(header)), header, data])


def _is_whole(file: BinaryIO, place: bytes) -> bool:
    """Whether a sealed file is as it was written, read in pieces that leave the memory free."""
    size = int.from_bytes(file.read(8), "little")
    if size > MOST_DESCRIBED:
        raise ValueError("what describes its tensors is too large")
    tensors = json.loads(file.read(size))
    if not isinstance(tensors, dict):
        return False
    kept, checksum = tensors.pop("__metadata__", None), 0
    while chunk := file.read(CHUNK):
        checksum = zlib.crc32(chunk, checksum)
    return bool(kept == {"checksum": _checksum(checksum, tensors, place)})


def _fits(tensors: Mapping[str, Tensor], table: Description, number: int) -> bool:
    rows = len(table.span(number))
    shapes = {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()}
    return shapes == {name: (dtype, [rows, *shape]) for name, (dtype, shape) in table.tensors.items()}


def _checksum(data: int, tensors: Mapping[str, Any], place: bytes) -> str:
    described = json.dumps(tensors, sort_keys=True).encode()
    return f"{zlib.crc32(place, zlib.crc32(described, data)):08x}"

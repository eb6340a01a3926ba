"""Folders of images, one folder a class, under the names that people give their parts: train/, val/, test/."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from limbeck.errors import RequestError, as_request, reason_of

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What folders are called that hold a part of the data, in any case."""
SUFFIXES = (*IMG_EXTENSIONS, ".gif", ".jfif", ".jpe", ".jp2", ".pbm", ".pnm", ".tga")
"""How the names of image files end; of a film in one file (.gif, .tiff), the first picture is read."""
MOST_NAMED = 6
"""Classes, or kinds of files, that are named one by one at most."""
PROBED = 256
"""So many files are read for a digest that must hold for a copy of the folder; of all others the sizes count."""
LARGEST = 224
"""Height and width of the photographs that most networks for images are trained on."""


class Images(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """The images of one part as uint8 tensors (3, H, W), with their labels.

    Args:
        root: The part's folder, such as train/.
        size: Height and width to which they are brought; None leaves them as they are.
        may_lack: Whether a class may have no image.

    Raises:
        RequestError: It has no folder of images a class.
    """

    def __init__(self, root: Path, size: int | None, *, may_lack: bool = False) -> None:
        self.left_out: Counter[str] = Counter()
        steps: list[Any] = [] if size is None else brought_to(size)
        with as_request(
            lambda reason: f"cannot read the image folder {root} ({reason}); give it one folder of images a class"
        ):
            transform = v2.Compose([*steps, v2.PILToTensor()])
            super().__init__(root, transform, loader=decoded, is_valid_file=self._takes, allow_empty=may_lack)
        if not self.samples:
            raise RequestError(f"cannot read the image folder {root}: its folders hold no image{self._left_out()}")
        self.shape: tuple[int, ...] | None = None
        self.shape = tuple(self[0][0].shape)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The folders that stand for classes; hidden ones, which editors and archives leave, are none."""
        names = sorted(entry.name for entry in Path(directory).iterdir() if entry.is_dir() and not is_hidden(entry))
        if not names:
            raise FileNotFoundError("there are no folders in it")
        return names, {name: number for number, name in enumerate(names)}

    @property
    def note(self) -> str:
        """How many images of each class there are, and what was left out, in words."""
        counts = np.bincount(self.targets, minlength=len(self.classes))
        if len(self.classes) <= MOST_NAMED:
            each = ", ".join(f"{name} {count:,}" for name, count in zip(self.classes, counts, strict=True))
        else:
            each = f"{len(self.classes):,} classes of {counts.min():,} to {counts.max():,}"
        images = "image" if len(self) == 1 else "images"
        return f"{Path(self.root).name}/ has {len(self):,} {images} ({each}){self._left_out()}"

    def _takes(self, path: str) -> bool:
        """Whether a file is an image by its name; what is left out is counted, but for hidden files."""
        if is_hidden(Path(path)):
            return False
        taken = path.lower().endswith(SUFFIXES)
        if not taken:
            self.left_out[Path(path).suffix.lower() or "without a suffix"] += 1
        return taken

    def _left_out(self) -> str:
        if not self.left_out:
            return ""
        most = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMED]
        kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in most)
        files = "1 file is" if self.left_out.total() == 1 else f"{self.left_out.total():,} files are"
        return f"; {files} left out, being no images by their names ({kinds})"

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = super().__getitem__(index)
        if self.shape is not None and tuple(image.shape) != self.shape:
            raise RequestError(
                f"{self.samples[index][0]} has the shape {tuple(image.shape)} and the first image {self.shape}; "
                "set data.size to bring all images to one size"
            )
        return image, label

    def in_memory(self) -> Tensor:
        """All images, (N, 3, H, W)."""
        images = torch.empty((len(self), *(self.shape or ())), dtype=torch.uint8)
        for i in range(len(self)):
            images[i] = self[i][0]
        return images

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the files' names, sizes and times."""
        files = [(path, Path(path).stat()) for path, _ in self.samples]
        lines = [f"{Path(path).relative_to(self.root)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in files]
        return self._digest(lines).hexdigest()

    @property
    def portable(self) -> str:
        """Hexadecimal digest of the files' names and sizes, and of the content of some: that of any copy of them."""
        files = [Path(path) for path, _ in self.samples]
        digest = self._digest([f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}" for path in files])
        for path in files[:: -(-len(files) // PROBED)]:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def _digest(self, lines: list[str]) -> hashlib.blake2b:
        return hashlib.blake2b("\n".join([*lines, repr(self.transform)]).encode(), digest_size=8)


def read_parts(root: Path, size: int | None) -> dict[str, Images]:
    """The parts of a folder by what they are for: "train", and "validation" or "test" or both.

    Raises:
        RequestError: A part is missing, or cannot be told from another; the parts differ in their classes or shapes.
    """
    parts = {name: Images(folder, size, may_lack=name != "train") for name, folder in part_folders(root).items()}
    train = parts["train"]
    for part in parts.values():
        other = sorted(set(part.classes) ^ set(train.classes))
        if other:
            has = "has" if other[0] in part.classes else "lacks"
            raise RequestError(
                f"{train.root} and {part.root} have different class folders: the latter {has} {other[0]}"
            )
        if part.shape != train.shape:
            raise RequestError(
                f"{part.samples[0][0]} has the shape {part.shape} and the first image {train.shape}; "
                "set data.size to bring all images to one size"
            )
    return parts


def test_files(root: Path) -> list[str]:
    """The paths of the test set's images, in the order of its samples.

    Raises:
        RequestError: A part is missing, or cannot be told from another.
    """
    folders = part_folders(root)
    folder = folders.get("test") or folders["validation"]
    return [path for path, _ in Images(folder, None, may_lack=True).samples]


def square(folders: Mapping[str, Path]) -> int | None:
    """A height and width to which images of several sizes can be brought; None where those looked at have one size.

    Only the heads of some files are read. It is the shortest side among them, but at most `LARGEST`.

    Args:
        folders: The parts.

    Raises:
        RequestError: A file is no image.
    """
    seen: set[tuple[int, int]] = set()
    for folder in folders.values():
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not is_hidden(path))
        for path in files[:: -(-len(files) // PROBED) or 1]:
            with as_request(lambda reason: f"cannot read the image {path}: {reason}"), Image.open(path) as image:  # noqa: B023
                seen.add(image.size)
    return min(LARGEST, *(min(size) for size in seen)) if len(seen) > 1 else None


def brought_to(size: int) -> list[Any]:
    """The transforms that bring an image to a square: its shorter side resized, then the middle cut out."""
    return [v2.Resize(size), v2.CenterCrop(size)]


def decoded(path: str) -> Image.Image:
    """An image file as RGB: grey and palette images too, 16 bits brought to 8.

    Raises:
        RequestError: It is damaged, no image, or of a kind that has no usual range of values.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of transparent palettes
            image = Image.open(file)
            image.load()
            return _as_rgb(image)
    except Exception as error:  # Pillow has many
        reason = "it is no image" if "cannot identify" in str(error) else reason_of(error)
        raise RequestError(f"cannot read the image {path}: {reason}") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which `convert` would clip and not scale
        values = np.asarray(image)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError(
                "its values are beyond 16 bits, and their range is not known; save it with 8 bits a channel"
            )
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it holds fractions, whose range is not known; save it with 8 bits a channel")
    return image.convert("RGB")


def part_folders(root: Path) -> dict[str, Path]:
    """The folders of the parts: "train", and "validation" or "test" or both.

    Raises:
        RequestError: A part is missing, or cannot be told from another.
    """
    there = sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    found: dict[str, Path] = {}
    for part, names in PARTS.items():
        hits = [entry for entry in there if entry.name.lower() in names]
        if len(hits) > 1:
            held = ", ".join(f"{entry.name}/" for entry in hits)
            raise RequestError(f"{root} holds {held}, and which one is the {part} set is not clear; leave one there")
        if hits:
            found[part] = hits[0]
    if "train" not in found or len(found) < 2:
        held = ", ".join(f"{entry.name}/" for entry in there[:6]) or "no folder"
        raise RequestError(
            f"cannot read the image folder {root}: it needs train/, and test/ or val/ or both, each with one folder of "
            f"images a class, and holds {held}; --data-root names another"
        )
    return found


def is_hidden(path: Path) -> bool:
    """Whether an editor or an archive left a file, and no user."""
    return path.name.startswith((".", "__MACOSX"))

"""Folders of images as people have them: ImageNet's train/ and val/, other names, kinds of images, damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data import FromDisk, InMemory, load, make_loader
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.runs import components
from limbeck.runs.run import run

KINDS = ("cat", "dog")


def write(root: Path, **parts: int) -> None:
    """Images of 6×6 whose red is the number of the image, so many a class."""
    for part, count in parts.items():
        for label, kind in enumerate(KINDS):
            folder = root / part / kind
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (6, 6), (i, label, 200)).save(folder / f"{i}.png")


def test_train_and_val_are_a_training_and_a_test_set(tmp_path: Path) -> None:
    write(tmp_path, train=3, val=2)
    data = load("image-folder", tmp_path)
    assert (len(data.train), len(data.test), data.validation) == (6, 4, None)
    assert isinstance(data.test, InMemory)
    assert data.test.inputs[:, 0, 0, 0].tolist() == [0, 1, 0, 1]
    assert data.test.targets.tolist() == [0, 0, 1, 1]
    assert "val/ is the test set, read once at the end" in data.note
    taken = data.with_validation(0.34)
    assert (len(taken.train), len(taken.test)) == (3, 4)


def test_with_all_three_val_is_the_validation(tmp_path: Path) -> None:
    write(tmp_path, train=3, val=2, test=1)
    data = load("image-folder", tmp_path)
    assert data.validation is not None
    assert [len(part) for part in (data.train, data.validation, data.test)] == [6, 4, 2]
    assert "is the test set" not in data.note
    with pytest.raises(RequestError, match=r"has a validation set of its own; leave data\.validation out"):
        components.data(schema.Data(name="image-folder", validation=0.1), tmp_path)


@pytest.mark.parametrize("names", [("Train", "Val"), ("training", "valid"), ("TRAIN", "Test"), ("train", "validation")])
def test_other_names_are_read(names: tuple[str, str], tmp_path: Path) -> None:
    write(tmp_path, **{names[0]: 2, names[1]: 1})
    data = load("image-folder", tmp_path)
    assert (len(data.train), len(data.test)) == (4, 2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": 1}, r"needs train/, and test/ or val/ or both, .* holds train/"),
        ({"cats": 1, "dogs": 1}, r"holds cats/, dogs/; --data-root names another"),
        ({}, "holds no folder"),
        ({"train": 1, "val": 1, "valid": 1}, "holds val/, valid/, and which one is the validation set is not clear"),
    ],
)
def test_parts_that_are_missing_or_not_clear(parts: dict[str, int], message: str, tmp_path: Path) -> None:
    write(tmp_path, **parts)
    with pytest.raises(RequestError, match=message):
        load("image-folder", tmp_path)
    with pytest.raises(RequestError, match="holds no folder"):
        load("image-folder", tmp_path / "nowhere")


def test_what_else_lies_in_folders(tmp_path: Path) -> None:
    write(tmp_path, train=2, val=1)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "labels.csv").write_text("cat,0")
    (tmp_path / "train" / "cat" / "._0.png").write_bytes(b"what macOS leaves")
    (tmp_path / "train" / "cat" / "readme.txt").write_text("cats")
    assert len(load("image-folder", tmp_path).train) == 4
    (tmp_path / "val" / "dog" / "0.png").unlink()
    assert load("image-folder", tmp_path).test.targets.tolist() == [0]
    (tmp_path / "val" / "bird").mkdir()
    with pytest.raises(RequestError, match=r"have different class folders: the latter has bird"):
        load("image-folder", tmp_path)
    for i in range(2):
        (tmp_path / "train" / "dog" / f"{i}.png").unlink()
    with pytest.raises(RequestError, match=r"Found no valid file for the classes dog"):
        load("image-folder", tmp_path)


def test_counts_of_classes_and_what_is_left_out_are_told(tmp_path: Path) -> None:
    write(tmp_path, train=2, val=1)
    for name in ("notes.txt", "labels.TXT", "raw.heic", ".hidden.txt", "README"):
        (tmp_path / "train" / "cat" / name).write_text("no image")
    Image.new("P", (6, 6), 3).save(tmp_path / "train" / "dog" / "2.gif")
    data = load("image-folder", tmp_path)
    assert data.note.startswith(
        "train/ has 5 images (cat 2, dog 3); 4 files are left out, being no images by their names "
        "(.txt 2, .heic 1, without a suffix 1); val/ has 2 images (cat 1, dog 1); "
    )
    assert (data.class_names, data.counts(data.train), data.counts(data.test)) == (KINDS, [2, 3], [1, 1])


def test_a_film_in_one_file_is_its_first_picture(tmp_path: Path) -> None:
    write(tmp_path, train=1, val=1)
    first, second = (Image.new("RGB", (6, 6), (value, 0, 0)) for value in (255, 0))
    first.save(tmp_path / "train" / "cat" / "1.gif", save_all=True, append_images=[second])
    split = load("image-folder", tmp_path).train
    assert isinstance(split, InMemory)
    assert split.inputs[1, :, 0, 0].tolist() == [255, 0, 0]


def test_many_classes_are_told_by_their_extremes(tmp_path: Path) -> None:
    for number in range(8):
        for part in ("train", "val"):
            folder = tmp_path / part / f"class-{number}"
            folder.mkdir(parents=True)
            for i in range(1 + (number == 7 and part == "train")):
                Image.new("RGB", (2, 2)).save(folder / f"{i}.png")
    assert "train/ has 9 images (8 classes of 1 to 2)" in load("image-folder", tmp_path).note


def test_values_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    write(tmp_path, train=1, val=1)
    Image.fromarray(np.full((6, 6), 70_000, dtype=np.int32)).save(tmp_path / "train" / "cat" / "1.tiff")
    with pytest.raises(RequestError, match=r"1\.tiff: its values are beyond 16 bits"):
        load("image-folder", tmp_path)


def test_one_class_is_refused_and_a_class_of_one_image_only_for_validation(tmp_path: Path) -> None:
    write(tmp_path, train=1, val=1)
    assert len(load("image-folder", tmp_path).train) == 2
    with pytest.raises(RequestError, match=r"class 'cat' has only one there; add samples of it, or leave data\.valid"):
        components.data(schema.Data(name="image-folder", validation=0.5), tmp_path)
    Image.new("RGB", (6, 6)).save(tmp_path / "train" / "cat" / "more.png")
    Image.new("RGB", (6, 6)).save(tmp_path / "train" / "dog" / "more.png")
    with pytest.raises(RequestError, match=r"0\.1 gives 1 samples for validation and 3 for training, and both"):
        components.data(schema.Data(name="image-folder", validation=0.1), tmp_path)
    assert len(components.data(schema.Data(name="image-folder", validation=0.5), tmp_path).train) == 2
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / part / "dog")
    with pytest.raises(RequestError, match=r"^image-folder has only one class, 'cat', and a classifier tells two"):
        load("image-folder", tmp_path)


def test_a_copy_of_a_folder_has_the_same_portable_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one", train=3, val=1)
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    monkeypatch.setattr("limbeck.data.sets.MEMORY_LIMIT", 100)

    def digests(name: str) -> tuple[str, str]:
        split = load("image-folder", tmp_path / name).train
        assert isinstance(split, FromDisk)
        return split.fingerprint, split.portable

    os.utime(tmp_path / "two" / "train" / "cat" / "0.png", (1, 1))
    one, two = digests("one"), digests("two")
    assert one[0] != two[0]
    assert one[1] == two[1]
    Image.new("RGB", (6, 6), (99, 98, 97)).save(tmp_path / "two" / "train" / "cat" / "0.png")
    assert digests("two")[1] != one[1]


def test_an_unsorted_val_as_imagenet_comes_is_refused_in_words(tmp_path: Path) -> None:
    write(tmp_path, train=1)
    (tmp_path / "val").mkdir()
    Image.new("RGB", (6, 6)).save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(RequestError, match=r"val \(there are no folders in it\); give it one folder of images a class"):
        load("image-folder", tmp_path)


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((6, 6), 0x8040, dtype=np.uint16))


def palette() -> Image.Image:
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = b"\x00\xff"
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "pixel"),
    [
        (Image.new("L", (6, 6), 77), "png", [77, 77, 77]),
        (Image.new("1", (6, 6), 1), "png", [255, 255, 255]),
        (Image.new("LA", (6, 6), (77, 10)), "png", [77, 77, 77]),
        (Image.new("RGBA", (6, 6), (1, 2, 3, 0)), "png", [1, 2, 3]),
        (palette(), "png", [10, 20, 30]),
        (sixteen_bits(), "png", [0x80, 0x80, 0x80]),
        (sixteen_bits(), "tiff", [0x80, 0x80, 0x80]),
        (Image.new("CMYK", (6, 6), (0, 0, 0, 255)), "tiff", [0, 0, 0]),
    ],
)  # fmt: skip
def test_kinds_of_images_are_read_as_rgb(image: Image.Image, suffix: str, pixel: list[int], tmp_path: Path) -> None:
    write(tmp_path, train=1, val=1)
    image.save(tmp_path / "train" / "cat" / f"1.{suffix}")
    split = load("image-folder", tmp_path).train
    assert isinstance(split, InMemory)
    assert split.inputs.shape == (3, 3, 6, 6)
    assert split.inputs[1, :, 2, 2].tolist() == pixel


def damage(path: Path, how: str) -> None:
    if how == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:90])
    elif how == "text":
        path.write_text("<html>404</html>")
    elif how == "fractions":
        Image.new("F", (6, 6), 0.5).save(path, format="tiff")
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "truncated|broken"),
        ("text", "it is no image"),
        ("empty", "it is no image"),
        ("fractions", "holds fractions"),
    ],
)
@pytest.mark.parametrize("workers", [None, 0, 1])
def test_a_damaged_image_is_named(
    how: str, message: str, workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, train=2, val=1)
    damage(tmp_path / "train" / "dog" / "2.png", how)
    whole = rf"^cannot read the image \S+/train/dog/2\.png: .*({message}).*$"
    if workers is not None:
        monkeypatch.setattr("limbeck.data.sets.MEMORY_LIMIT", 100)
        loader = make_loader(load("image-folder", tmp_path).train, 4, workers=workers)
        with pytest.raises(RequestError, match=whole) as caught:
            list(loader)
    else:
        with pytest.raises(RequestError, match=whole) as caught:
            load("image-folder", tmp_path)
    assert "\n" not in str(caught.value)


def test_images_of_several_sizes_that_workers_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, train=2, val=1)
    Image.new("RGB", (9, 6)).save(tmp_path / "train" / "dog" / "9.png")
    monkeypatch.setattr("limbeck.data.sets.MEMORY_LIMIT", 100)
    split = load("image-folder", tmp_path).train
    assert isinstance(split, FromDisk)
    with pytest.raises(RequestError, match=r"9\.png has the shape \(3, 6, 9\) and the first image .*; set data\.size"):
        list(make_loader(split, 4))
    sized = load("image-folder", tmp_path, size=4)
    assert [tuple(batch.inputs.shape) for batch in make_loader(sized.train, 5)] == [(5, 3, 4, 4)]


def test_a_run_says_once_what_the_test_set_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, Train=6, Val=3)
    content: dict[str, Any] = {
        "data": {"name": "image-folder", "batch_size": 4, "size": 5},
        "teacher": {"model": "mlp", "hidden": [4], "epochs": 1, "store": "never"},
        "student": {"model": "mlp", "hidden": [3]},
        "distill": {"task_weight": 0.1, "terms": [{"loss": "kd", "weight": 0.9}]},
        "epochs": 1,
    }
    torch.manual_seed(0)
    result = run(schema.Recipe.model_validate(content), root=tmp_path, out=tmp_path / "out")
    assert result["distilled"]["test_accuracy"] * 6 == pytest.approx(round(result["distilled"]["test_accuracy"] * 6))
    assert capsys.readouterr().err.count("Val/ is the test set") == 1

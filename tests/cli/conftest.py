"""Trained runs that several tests of the commands look at, and the command itself, called in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from called import Limbeck, Said, call
from PIL import Image

MODES = ("L", "RGB", "P", "I;16", "RGBA", "1-channel-gif")


@pytest.fixture
def limbeck(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Limbeck:
    def run(*arguments: object) -> Said:
        capsys.readouterr()
        status = call(tuple(map(str, arguments)), monkeypatch)
        return Said(status, *capsys.readouterr())

    return run


def prepared(*arguments: object, cache: Path) -> None:
    """Run a command whose output is of no interest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(cache))
        assert call(tuple(map(str, arguments)), patch) == 0


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A finished run on scikit-learn's digits, in a folder with a space and Chinese characters."""
    out = tmp_path_factory.mktemp("运行 one") / "digits run"
    prepared(
        "run",
        "digits",
        "--epochs",
        2,
        "--set",
        "teacher={model: mlp, hidden: [32], epochs: 2}",
        "--out",
        out,
        "--quiet",
        cache=shared_cache,
    )
    return out


@pytest.fixture(scope="session")
def exits_run(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A finished run of a student with three exits."""
    out = tmp_path_factory.mktemp("exits") / "run"
    small = ("--epochs", 1, "--set", "student.widths=[4, 6, 8]", "--no-baseline")
    prepared("run", "digits-byot", *small, "--out", out, "--quiet", cache=shared_cache)
    return out


def picture(path: Path, bright: bool, number: int) -> None:
    """A noisy dark or bright image, each in another size and mode."""
    random = np.random.default_rng(number)
    size = (9 + number % 5, 8 + number % 3)
    grey = (random.integers(0, 110, size) + (120 if bright else 0)).astype(np.uint8)
    mode = MODES[number % len(MODES)]
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path.with_suffix(".png"))
    elif mode == "1-channel-gif":
        Image.fromarray(grey).save(path.with_suffix(".gif"))
    else:
        Image.fromarray(grey).convert(mode).save(path.with_suffix(".png"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of mixed sizes and modes: dark ones are 夜, bright ones "full day", and four labels are wrong."""
    root = tmp_path_factory.mktemp("照片 of mine")
    for part, count in (("train", 24), ("test", 12)):
        for bright, name in ((False, "夜"), (True, "full day")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                wrong = part == "test" and number < 2  # two images a class with the other's label
                picture(root / part / name / f"{number:02}", bright != wrong, number + 100 * bright)
    return root


@pytest.fixture(scope="session")
def pictures_run(pictures: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A finished run on that folder."""
    out = tmp_path_factory.mktemp("pictures") / "run"
    recipe = tmp_path_factory.mktemp("recipe") / "day and night.yaml"
    recipe.write_text(
        "data: {name: image-folder, size: 8, batch_size: 8}\n"
        "teacher: {model: mlp, hidden: [8], epochs: 2}\n"
        "student: {model: mlp, hidden: [4], mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]}\n"
        "distill: {method: kd}\nepochs: 3\n",
        encoding="utf-8",
    )
    prepared("run", recipe, "--data-root", pictures, "--out", out, "--quiet", cache=shared_cache)
    return out


@pytest.fixture(scope="session")
def comparisons(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """Comparisons of one recipe: "first" has two seeds, "second" another one, and "whole" all three."""
    folder = tmp_path_factory.mktemp("comparisons")
    teacher = "teacher={model: mlp, hidden: [32], epochs: 2}"
    for name, seed, seeds in (("first", 0, 2), ("second", 2, 1), ("whole", 0, 3)):
        resumed = []
        if name == "whole":
            shutil.copytree(folder / "first", folder / name)
            resumed = ["--resume"]
        prepared(
            "compare", "digits", "--methods", "kd,recipe", "--seeds", seeds, "--set", f"seed={seed}", "--epochs", 1,
            "--set", teacher, "--out", folder / name, "--quiet", *resumed, cache=shared_cache,
        )  # fmt: skip
    return folder

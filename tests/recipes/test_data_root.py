"""`data.root`: a recipe says where its data lie, relative to its own file; a copy elsewhere is the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.cli.options import root_of
from limbeck.folders import data_root
from limbeck.recipes.read import read, read_variants

TEXT = """
data: {name: cifar10, root: ../data/cifar}
student: {model: mlp}
distill: {scheme: mutual}
variants:
  other: {data: {name: cifar10, root: here}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "recipes" / "one.yaml"
    path.write_text(TEXT)
    return path


def test_it_is_relative_to_the_file(file: Path, tmp_path: Path) -> None:
    assert read(str(file)).data.root == str(tmp_path / "data" / "cifar")
    assert read("../recipes/one.yaml:other").data.root == str(tmp_path / "recipes" / "here")
    assert read_variants(str(file), ["other"])["other"].data.root == str(tmp_path / "recipes" / "here")


def test_a_base_is_relative_to_itself(file: Path, tmp_path: Path) -> None:
    above = tmp_path / "above.yaml"
    above.write_text("base: recipes/one.yaml\nepochs: 3\n")
    assert read(str(above)).data.root == str(tmp_path / "data" / "cifar")


def test_what_is_set_is_relative_to_here(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(str(file), ["data.root=x"]).data.root == str(tmp_path / "elsewhere" / "x")
    monkeypatch.setenv("HOME", "/home/me")
    assert read(str(file), ["data.root=~/x"]).data.root == "/home/me/x"
    assert read("digits").data.root is None


def test_who_says_where_the_data_are(file: Path, tmp_path: Path) -> None:
    assert root_of(Path("given"), read(str(file))) == Path("given")
    assert root_of(None, read(str(file))) == tmp_path / "data" / "cifar"
    assert root_of(None, read("digits")) == data_root()

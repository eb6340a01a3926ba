"""What a shell is offered: the names that there are, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from called import Limbeck, Said

from limbeck.cli import complete
from limbeck.data.sets import NAMES
from limbeck.models import NETWORKS
from limbeck.recipes.methods import METHODS, QUANTISED, SCHEMES
from limbeck.recipes.read import names
from limbeck.tasks import TASKS


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "digits-own.yaml").touch()
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)


def typed(line: str, limbeck: Limbeck, patch: pytest.MonkeyPatch) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    patch.setenv("_LIMBECK_COMPLETE", "complete_bash")
    patch.setenv("COMP_WORDS", line)
    patch.setenv("COMP_CWORD", str(len(words) - 1))
    said: Said = limbeck()
    assert said.err == ""
    return said.out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("limbeck ru", ["run"]),
        ("limbeck ne", ["new"]),
        ("limbeck run digits-o", ["digits-own.yaml"]),
        ("limbeck run digits-by", ["digits-byot"]),
        ("limbeck run own", ["own/"]),
        ("limbeck run digits --no-b", ["--no-baseline"]),
        ("limbeck run digits --accelerator c", ["cpu", "cuda"]),
        ("limbeck run digits --set teacher.ep", ["teacher.epochs="]),
        ("limbeck compare digits --methods kd,dk", ["kd,dkd"]),
        ("limbeck new mine.yaml --student resnet8x", ["resnet8x4"]),
        ("limbeck new mine.yaml --data cifar", ["cifar10", "cifar100"]),
        ("limbeck new mine.yaml --teacher-weights no", ["notes.txt"]),
        ("limbeck list mod", ["models"]),
    ],
)
def test_what_is_offered(line: str, offered: list[str], limbeck: Limbeck, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(line, limbeck, monkeypatch) == offered


def test_names_read_from_the_source_are_those_there_are() -> None:
    assert set(complete.method_names()) == {"recipe", "backbone", *METHODS, *SCHEMES, *QUANTISED}
    assert complete.model_names() == [*NETWORKS]
    assert complete.data_names() == [*NAMES]
    assert complete.task_names() == [*TASKS]
    assert {*complete.recipes("")} == {*names(), "digits-own.yaml", "own/"}


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "own" / "deep").mkdir()
    (tmp_path / "own" / ".hidden").touch()
    (tmp_path / "own" / "a.yml").touch()
    assert complete.recipes("own/") == ["own/a.yml", "own/deep/"]
    assert complete.files_too("own/.h") == ["own/.hidden"]
    assert complete.files_too(f"{tmp_path}/no") == [f"{tmp_path}/notes.txt"]
    assert complete.files_too("nowhere/") == []


def test_the_script_is_shown_and_nothing_imports_torch(limbeck: Limbeck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code = (
        "import os, sys\n"
        "sys.argv = ['limbeck', '--show-completion', 'zsh']\n"
        "from limbeck.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as error: assert not error.code\n"
        "os.environ |= {'_LIMBECK_COMPLETE': 'complete_bash', 'COMP_CWORD': '4'}\n"
        "for line in ('compare digits --methods k', 'run digits --set da', 'new a.yaml --teacher re'):\n"
        "    os.environ['COMP_WORDS'] = 'limbeck ' + line\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "del os.environ['_LIMBECK_COMPLETE']\n"
        "for words in (['list', 'recipes'], ['show', '--keys', 'data']):\n"
        "    sys.argv = ['limbeck', *words]\n"
        "    try: main()\n"
        "    except SystemExit as error: assert not error.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_LIMBECK_COMPLETE=complete_zsh" in done.stdout
    for offered in ("kd", "data.batch_size=", "resnet20", "digits-byot", "data.root:"):
        assert offered in done.stdout.split()

"""A kept teacher, and its stored outputs, are found again only with the code that they were made by."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import limbeck
from limbeck.recipes import schema
from limbeck.recipes.read import check
from limbeck.runs import components, teachers
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.run import run

FILES = {
    "teaching/__init__.py": "",
    "teaching/net.py": (
        "from torch import nn\nfrom teaching.parts import Act\n"
        "def net(): return nn.Sequential(nn.Flatten(), Act(), nn.Linear(64, 10))\n"
    ),
    "teaching/parts.py": (
        "from .deeper import scale\nfrom torch import nn\n"
        "class Act(nn.Module):\n  def forward(self, x): return x * scale\n"
    ),
    "teaching/deeper.py": "scale = 1.0\n",
}
QUIET = Machine(accelerator="cpu", progress=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "teaching").mkdir()
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    forget()
    return tmp_path


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "teaching"]:
        del sys.modules[name]


def recipe(**changes: Any) -> schema.Recipe:
    teacher = {"model": "teaching.net:net", "epochs": 1, "optimizer": {"lr": 0.01}}
    student = {"model": "mlp", "hidden": [4]}
    distill = {"terms": [{"loss": "kd"}]}
    return check({"teacher": teacher, "student": student, "distill": distill, "epochs": 1} | changes)


def keys(made: schema.Recipe) -> tuple[str, dict[str, str]]:
    """The name of the kept teacher, and what its stored outputs are made of."""
    forget()
    data = components.data(made.data, Path())
    found = teachers.candidates(made, data)
    asking = Asking(made, data, QUIET.fabric("32-true"), schema.Store())
    assert found[0].kept is not None
    return found[0].kept.name, asking.made_of(teachers.as_one(found))


def test_an_edit_of_an_imported_module_trains_the_teacher_anew(project: Path) -> None:
    sources, accuracies = [], []
    for number, scale in enumerate((1.0, 1.0, -1.0)):
        (project / "teaching/deeper.py").write_text(f"scale = {scale}\n")
        forget()
        found = run(recipe(), root=project, out=project / f"run{number}", machine=QUIET, baseline=False)["teacher"]
        sources.append(found["source"])
        accuracies.append(found["test_accuracy"])
    assert sources == ["trained", "reused", "trained"]
    assert accuracies[0] == accuracies[1]
    assert min(accuracies) > 0.5


@pytest.mark.parametrize("name", FILES)
def test_every_module_counts_for_teacher_and_outputs(project: Path, name: str) -> None:
    before = keys(recipe())
    assert keys(recipe()) == before
    (project / name).write_text(FILES[name] + "edited = True\n")
    kept, made_of = keys(recipe())
    assert kept != before[0]
    assert {part for part in made_of if made_of[part] != before[1][part]} == {"code"}


def test_the_version_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(recipe())
    monkeypatch.setattr(limbeck, "__version__", "99.0")
    kept, made_of = keys(recipe())
    assert kept != before[0]
    assert made_of == before[1] | {"limbeck": "99.0"}


@pytest.mark.parametrize("memory", [True, False])
def test_own_data_counts_by_its_code_where_not_all_samples_are_known(project: Path, memory: bool) -> None:
    made = "TensorDataset(x, y)" if memory else "FromDisk(TensorDataset(x, y), y, 'mine')"
    text = (
        "import torch\nfrom torch.utils.data import TensorDataset\nfrom limbeck.data import FromDisk\n"
        f"x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 10\ndef data(): return {made}, {made}\n"
    )
    torch.manual_seed(0)
    (project / "teaching/data.py").write_text(text)
    before = keys(recipe(data={"name": "teaching.data:data"}))
    torch.manual_seed(0)
    (project / "teaching/data.py").write_text(text + "edited = True\n")
    assert (keys(recipe(data={"name": "teaching.data:data"})) == before) == memory


def test_names_and_files_of_networks(project: Path) -> None:
    file = project / "start.keras"
    file.write_bytes(b"one")
    made = recipe(teacher={"model": f"keras:{file}", "epochs": 1})
    one = teachers.Candidate(made.teachers[0], "teacher", nn.Linear(2, 2))
    data = components.data(made.data, project)
    before = teachers._key(one, made, data)
    assert "/" not in before
    file.write_bytes(b"two")
    assert teachers._key(one, made, data) != before

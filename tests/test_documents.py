"""The documents say what is so: made ones are made anew, examples run, links and commands lead somewhere."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import runpy
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
import yaml
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import fit, losses
from limbeck.cli.main import app
from limbeck.data import InMemory, load, make_loader
from limbeck.recipes.methods import METHODS, SCHEMES
from limbeck.recipes.read import check, names, read
from limbeck.recipes.schema import Store
from limbeck.report import methods
from limbeck.runs import components
from limbeck.tasks import TASKS
from limbeck.tuning.space import read_space

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = [*READMES, "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[tuple[str, str]]:
    """A document's code blocks as (language, code); those indented by four are shell."""
    found: list[tuple[str, list[str]]] = []
    fenced = indented = False
    for line in text(name).splitlines():
        if line.startswith("```"):
            fenced, indented = not fenced, False
            if fenced:
                found.append((line[3:], []))
        elif fenced:
            found[-1][1].append(line)
        elif line.startswith("    "):
            if not indented:
                found.append(("shell", []))
            found[-1][1].append(line[4:])
            indented = True
        else:
            indented = False
    assert not fenced
    return [(language, "\n".join(lines)) for language, lines in found]


def first(name: str, language: str) -> str:
    return next(code for kind, code in blocks(name) if kind == language)


def links(name: str) -> list[str]:
    """Targets of relative links and pictures."""
    targets = re.findall(r"\]\(([^()\s]+)\)", text(name))
    return [target for target in targets if not target.startswith(("https://", "http://", "mailto:", "#"))]


def module(path: str) -> ModuleType:
    """A module outside of the package, wherever the tests are started."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_methods_are_what_the_docstrings_say() -> None:
    assert text("docs/methods.md") == methods.document(), "python -m limbeck.report.methods > docs/methods.md"


def test_results_are_what_was_measured() -> None:
    assert text("docs/results.md") == module("benchmarks/record.py").document(), "python -m benchmarks.record"


def test_the_campaigns_table_is_what_was_tried() -> None:
    assert text("docs/reliability.md") == module("benchmarks/record.py").reliability(), "python -m benchmarks.record"


@pytest.mark.parametrize("thing", [*(getattr(losses, name) for name in losses.LOSSES), *methods.schemes()])
def test_every_loss_and_scheme_says_what_it_is_for(thing: Any) -> None:
    for label in ("Transfers", "Use", "Source"):
        said = methods.labelled(thing, label)
        assert len(said) > 10, f"{thing.__name__} needs a line '{label}: … .' in its docstring"
        assert said.endswith("."), said


def test_every_name_has_a_row_of_its_own() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", text("docs/methods.md"), re.MULTILINE)
    for name in losses.LOSSES:
        # The method named like its loss (kd, dkd, …) has a row more.
        assert rows.count(name) == 2 + (name in METHODS)
    assert {*METHODS, *SCHEMES} <= set(rows)


def test_every_row_has_as_many_cells_as_its_head() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", text("docs/methods.md"), re.MULTILINE)
    assert len(tables) > 10
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    "row",
    [
        r"| `l1` | Mean of \|f\_s − f\_t\| over all but the batch | `tokens=None` | "
        "the L1 form of FitNets' hint, [arXiv:1412.6550](https://arxiv.org/abs/1412.6550) |",
        "| `at` | cifar | 1 | `{loss: attention, weight: 1000.0}` on stage1, stage2, stage3 |",
    ],
)
def test_rows(row: str) -> None:
    assert row in text("docs/methods.md").splitlines()


@pytest.fixture
def loaders(blobs: InMemory) -> dict[str, DataLoader[Any]]:
    data = TensorDataset(blobs.inputs, blobs.targets)
    return {
        "train_loader": DataLoader(data, batch_size=16, shuffle=True),
        "val_loader": DataLoader(data, batch_size=16),
    }


@pytest.mark.parametrize("name", READMES)
def test_python_example_runs(
    name: str,
    student: nn.Module,
    teacher: nn.Module,
    loaders: dict[str, DataLoader[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"student": student, "teacher": teacher, **loaders}
    for language, code in blocks(name):
        if language == "python":
            exec(compile(code, name, "exec"), scope)
    assert 0 <= float(capsys.readouterr().out.splitlines()[-1]) <= 1
    kept = torch.load(tmp_path / "student.pt", weights_only=True)
    assert list(kept) == list(student.state_dict())
    assert (tmp_path / "runs" / "mine" / "student.safetensors").exists()


def test_exits_examples_run(
    few_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    found = blocks("docs/exits.md")
    commands = [line.split("#")[0].split() for line in found[0][1].splitlines()]
    assert [command[1] for command in commands] == ["run", "exits", "export"]
    for command in commands:
        shorter = ["--epochs", "1", "--no-baseline", "--quiet", "--set", "student.widths=[4, 6, 8]"]
        typer.main.get_command(app).main(
            [*command[1:], *(shorter if command[1] == "run" else [])], standalone_mode=False
        )
    scope: dict[str, Any] = {"images": torch.rand(5, 1, 8, 8)}
    for language, code in found:
        if language == "python":
            exec(compile(code, "docs/exits.md", "exec"), scope)
    assert scope["logits"].shape == scope["answers"].shape == (5, 10)
    torch.testing.assert_close(torch.from_numpy(scope["answers"]), scope["logits"], rtol=0, atol=1e-4)
    assert set(scope["exit_used"].tolist()) <= {1, 2, 3}


def test_foreign_models_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for extra in ("keras", "onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        pytest.importorskip(extra, reason=f"{extra} is not installed")
    train = load("digits", tmp_path).train
    assert isinstance(train, InMemory)
    data = TensorDataset(train.inputs[:256] / 255, train.targets[:256])
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"train_loader": DataLoader(data, batch_size=32, shuffle=True)}
    for language, code in blocks("docs/foreign.md"):
        if language == "python":
            exec(compile(code, "docs/foreign.md", "exec"), scope)
    assert 0.5 < float(capsys.readouterr().out.splitlines()[-1]) <= 1
    assert (tmp_path / "student.keras").exists()


def test_cache_examples_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    (tmp_path / "teachers" / "half").mkdir(parents=True)
    (tmp_path / "teachers" / "half" / "teacher.safetensors").write_bytes(b"cut")
    shown = next(code for _, code in blocks("docs/scaling.md") if "--list" in code)
    said = []
    for line in shown.splitlines():
        command = line.split("#")[0].split()
        typer.main.get_command(app).main(command[1:], standalone_mode=False)
        said.append(capsys.readouterr().out)
    assert ["1 entries" in said[0], "0 B would be freed" in said[1], "3 B left" in said[2]] == [True] * 3
    assert "deleted teacher" in said[3]


def test_show_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown = next(code for _, code in blocks("docs/bring.md") if "--keys" in code)
    said = []
    for line in shown.splitlines():
        command = line.split("#")[0].split()
        typer.main.get_command(app).main(command[1:], standalone_mode=False)
        said.append(capsys.readouterr().out)
    assert ["name: digits" in said[0], "\nepochs: 5 " in said[1], "\nlayout: auto" in said[2]] == [True] * 3
    assert said[3].startswith("teacher.store: ")
    assert said[3].count("default: ") == 1 + len(Store.model_fields)


def test_command_examples_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    test = load("digits", tmp_path).test
    assert isinstance(test, InMemory)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(test.inputs[number, 0].numpy()).save(tmp_path / "photos" / f"{number}.png")
    tiny = ["--epochs", "1", "--set", "teacher={model: mlp, hidden: [32], epochs: 1}", "--quiet"]
    said = []
    for line in blocks("docs/cli.md")[0][1].splitlines():
        command = line.split("#")[0].split()[1:]
        shorter = tiny if command[0] in ("run", "compare") else []
        typer.main.get_command(app).main([*command, *shorter], standalone_mode=False)
        said.append(capsys.readouterr().out)
    assert said[1].splitlines()[0] == "file,class,probability,class_2,probability_2"
    assert len(said[1].splitlines()) == 4
    assert len((tmp_path / "photos.jsonl").read_text().splitlines()) == 3
    named = re.findall(r"`([a-z]+\.(?:json|svg|png|html))`", text("docs/cli.md"))
    assert {path.name for path in (tmp_path / "runs" / "digits").iterdir()} >= set(named)
    assert "<h1>First</h1>" in (tmp_path / "runs" / "digits" / "run.html").read_text()
    assert said[7].startswith("| method | test accuracy | seeds |")
    assert "0, 1" in said[8]
    assert json.loads(said[9])["methods"]
    assert Path(said[10].strip()).is_dir()


def test_tune_examples_run(
    few_digits: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["--trials", "1", "--fresh-seeds", "1", "--epochs", "1", "--quiet"]
    tiny += ["--set", "teacher={model: mlp, hidden: [32], epochs: 1}"]
    commands = [line.split("#")[0].split()[1:] for line in blocks("docs/tune.md")[0][1].splitlines()[1:]]
    run = blocks("docs/tune.md")[2][1].split()[1:]
    for command in (*commands, [*run, "--no-baseline", "--quiet"]):
        shorter = tiny if command[0] == "tune" else []
        typer.main.get_command(app).main([*command, *shorter], standalone_mode=False)
    assert [path.name for path in sorted((tmp_path / "runs").iterdir())][:2] == ["digits-best-recipe", "hour"]
    found = json.loads((tmp_path / "runs" / "tune-digits-2" / "tune.json").read_text())
    assert {"baseline", "kd", "dkd"} <= found.keys()
    keys = re.findall(r"^\| `(\w+)` \| (?:each|by|the|how|seconds)", text("docs/tune.md"), re.MULTILINE)
    assert len(keys) == 4
    assert {*keys} <= found.keys()
    assert {"trials", "seconds", "best", "fresh"} <= found["kd"].keys()
    space = yaml.safe_load(first("docs/tune.md", "yaml"))
    assert read_space(space, "docs/tune.md", ["kd"]).own.keys() == {"kd"}


def test_taps_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    for language, code in blocks("docs/taps.md"):
        if language == "python":
            exec(compile(code, "docs/taps.md", "exec"), scope)
    shape = capsys.readouterr().out.splitlines()[0]
    assert f"# {shape}," in text("docs/taps.md")


def test_taps_recipes_are_recipes() -> None:
    distill, models = (yaml.safe_load(code) for language, code in blocks("docs/taps.md") if language == "yaml")
    recipe = check(models | distill)
    assert recipe.teachers[0].inputs == {"image": "x", "sound": "s"}
    assert [term.options for term in recipe.distill.terms[:2]] == [
        {"power": 2.0},
        {"temperature": 2, "teacher_temperature": 4},
    ]


@pytest.mark.parametrize("name", READMES)
def test_python_example_is_short(name: str) -> None:
    assert sum(bool(line.strip()) for line in first(name, "python").splitlines()) <= 12


@pytest.mark.parametrize("name", READMES)
def test_recipe_is_the_packaged_one(name: str) -> None:
    content = yaml.safe_load(first(name, "yaml"))
    shown, packaged = check(content), read("mnist-mlp")
    assert content.keys() >= {"data", "teacher", "student", "distill", "epochs"}
    for key in content:
        assert getattr(shown, key) == getattr(packaged, key), key


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md"])
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^(\w+):", text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make (\w+)", text(name), re.MULTILINE))
    assert {"test"} <= named <= targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    for command, recipe in re.findall(r"(?:^    |`)limbeck ([a-z]+)(?: (\w[\w-]*))?", text(name), re.MULTILINE):
        assert command in commands
        if command in ("run", "compare") and recipe:
            assert recipe in names()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in links(name):
        assert ((ROOT / name).parent / target.partition("#")[0]).exists(), target


def given_to_fit(document: str) -> list[str]:
    """The names that prose gives `fit`: in `fit(..., name=…)`, or in quotes right behind `fit`."""
    calls = re.findall(r"`fit\(([^`]*)\)`", document)
    for _ in range(3):  # what inner calls take is theirs
        calls = [re.sub(r"\([^()]*\)", "", call) for call in calls]
    named = [name for call in calls for name in re.findall(r"(\w+)=", call)]
    return named + re.findall(r"`fit`[^`.;:]{1,8}`(\w+)(?:=[^`]*)?`", document)


def test_prose_gives_fit_what_it_takes() -> None:
    said = "`fit(…, a=B(c=(1, 2)), d=3)`, give `fit` a\n`e`, `fit`'s `g`; `fit` it. `h`"
    assert given_to_fit(said) == ["a", "d", "e", "g"]
    named = [(name, given) for name in (*DOCUMENTS, "CHANGELOG.md") for given in given_to_fit(text(name))]
    assert len(named) > 4
    assert [one for one in named if one[1] not in inspect.signature(fit).parameters] == []


def test_own_loop_learns() -> None:
    assert runpy.run_path(str(ROOT / "examples" / "own_loop.py"))["main"]() > 0.8


class TestChinese:
    """The Chinese README follows the English one wherever a machine can tell."""

    def test_code_is_the_same(self) -> None:
        def code(name: str) -> list[tuple[str, str]]:
            return [
                (language, re.sub(r"\s+#.*", "", code) if language == "shell" else code)
                for language, code in blocks(name)
            ]

        assert code("README.zh-CN.md") == code("README.md")

    def test_figures_are_the_same(self) -> None:
        def figures(name: str) -> list[list[str]]:
            rows = [line for line in text(name).splitlines() if line.startswith("|")]
            return [re.findall(r"[+−±]?\d[\d.,]*", row) for row in rows]

        assert figures("README.zh-CN.md") == figures("README.md")

    def test_figures_in_prose_are_the_same(self) -> None:
        def figures(name: str) -> set[str]:
            return set(re.findall(r"\d+[.,]\d[\d.,]*\d|\d{4,}", text(name)))

        assert figures("README.zh-CN.md") == figures("README.md")

    def test_headings_and_links_are_the_same(self) -> None:
        headings, targets = [], []
        for name in READMES:
            headings.append(re.findall(r"^#+(?= )", text(name), re.MULTILINE))
            targets.append(sorted(set(links(name)) - set(READMES)))
        assert headings[0] == headings[1]
        assert targets[0] == targets[1]

    def test_each_leads_to_the_other(self) -> None:
        assert "README.zh-CN.md" in links("README.md")
        assert "README.md" in links("README.zh-CN.md")


def test_recipes_examples_run(
    student: nn.Module,
    teacher: nn.Module,
    loaders: dict[str, DataLoader[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = blocks("docs/recipes.md")
    whole, start, data, views = (code for language, code in found if language == "yaml")
    (tmp_path / "own.yaml").write_text(whole)
    lines = [line for language, code in found if language == "shell" for line in code.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    for command in filter(None, commands):
        more = ["--quiet", "--accelerator", "cpu"] if command[1] == "run" else []
        typer.main.get_command(app).main([*command[1:], *more], standalone_mode=False)
    said = capsys.readouterr().out
    assert ["teacher.epochs: " in said, '"$schema"' in said, "loss: dist" in said] == [True] * 3
    assert "(trial: limit_steps 2, limit_samples 200)" in said
    assert len(list((tmp_path / "trial").glob("student-epoch*.safetensors"))) >= 1
    (tmp_path / "trial" / "student.safetensors").rename(tmp_path / "pretrained.safetensors")
    (tmp_path / "own_data.py").write_text(
        "import torch\nfrom limbeck.data import DataSet, InMemory\n\ndef make(n):\n"
        "    part = InMemory(torch.rand(n, 1, 8, 8), torch.arange(n) % 3)\n"
        "    return DataSet('own', part, part, 3, (1, 8, 8))\n"
    )
    distill: dict[str, Any] = {"distill": {"scheme": "mutual"}, "epochs": 1}
    own = check(distill | yaml.safe_load(start) | yaml.safe_load(data))
    made = components.data(own.data, tmp_path)
    assert len(made.train) == 120
    (tmp_path / "own_views.py").write_text(
        "import torch\n\ndef noise(image, strength):\n"
        "    return (image + strength * torch.randn(image.shape) / 255).clamp(0, 1)\n"
    )
    augmented = check(yaml.safe_load(views) | distill | {"student": {"model": "mlp"}}).data
    seen = next(iter(make_loader(made.train, 8, views=components.views(augmented, made)))).inputs
    assert not torch.equal(seen, made.train.inputs[:8])
    components.model(own.student, made, 0)
    assert "left out, and new in the network" in capsys.readouterr().err
    scope: dict[str, Any] = {"student": student, "teacher": teacher, **loaders}
    for language, code in found:
        if language == "python":
            exec(compile(code, "docs/recipes.md", "exec"), scope)
    trained, reached = capsys.readouterr().out.split()[-2:]
    assert float(reached) >= 0.3
    assert int(trained) < 50


def test_tasks_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    exec(compile(first("docs/tasks.md", "python"), "docs/tasks.md", "exec"), {})
    assert 0 < float(capsys.readouterr().out.split()[-1]) < 3


def test_every_task_has_its_row() -> None:
    for name, kind in TASKS.items():
        task = kind()
        (row,) = (line for line in text("docs/tasks.md").splitlines() if line.startswith(f"| `{kind.__name__}`"))
        assert f"`{task.monitor}`, {task.mode}" in row, name

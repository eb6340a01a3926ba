"""Every task from a recipe and from Python: trained, tested, compared, resumed, stored."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import made_tasks as made
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from torch import nn
from torch.optim import Adam

from limbeck import Distiller, FunctionTeacher, RequestError, Term, evaluate, fit, losses
from limbeck.compare import compare, comparison
from limbeck.compare.join import join
from limbeck.data import make_loader
from limbeck.recipes.read import check
from limbeck.runs.finished.predict import predictor
from limbeck.runs.finished.read import classifier, evaluate_run
from limbeck.runs.hits import scored
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.tasks import Classification, Regression, Segmentation, TokenClassification
from limbeck.teachers.coding import Coding
from limbeck.types import Batch, TeacherOutput

HERE = made.__name__
QUIET = Machine(progress=False)
FAST = {"name": "adam", "lr": 0.01}
MODELS: dict[str, tuple[Any, Any]] = {
    "diabetes": ({"model": "mlp", "hidden": [64, 64]}, {"model": "mlp", "hidden": [8]}),
    "labels": ({"model": "mlp", "hidden": [64]}, {"model": "mlp", "hidden": [8]}),
    "masks": ({"model": f"{HERE}:pixels", "width": 16}, {"model": f"{HERE}:pixels", "width": 4}),
    "tokens": ({"model": f"{HERE}:reader", "width": 16}, {"model": f"{HERE}:reader", "width": 6}),
}
TERMS = {
    "diabetes": {"loss": "mse", "weight": 0.5},
    "labels": {"loss": "sigmoid_kd", "weight": 0.5},
    "masks": {"loss": "kd", "weight": 0.5},
    "tokens": {"loss": "kd", "weight": 0.5},
}
MONITORS = {
    "diabetes": ("rmse", "min"),
    "labels": ("mean_average_precision", "max"),
    "masks": ("mean_iou", "max"),
    "tokens": ("accuracy", "max"),
}


def recipe(name: str, **changes: Any) -> Any:
    teacher, student = MODELS[name]
    whole = {
        "name": name,
        "data": {"name": f"{HERE}:{name}", "batch_size": 32, "validation": 0.2},
        "teacher": {**teacher, "epochs": 6, "optimizer": FAST},
        "student": student,
        "distill": {"task_weight": 0.5, "terms": [TERMS[name]]},
        "epochs": 4,
        "optimizer": FAST,
        "keep": "best",
    }
    return check(whole | changes)


def classifier_only(folder: Path) -> Any:
    return classifier(folder, folder, "limbeck exits")


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_judged_by_its_tasks_monitor(name: str, tmp_path: Path) -> None:
    result = run(recipe(name), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    monitor, mode = MONITORS[name]
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    for one in (written["teacher"], written["baseline"], written["distilled"]):
        assert (one["monitor"], one["mode"]) == (monitor, mode)
        assert one["test"][monitor] == one[f"test_{monitor}"]
        assert "agreement" in one["test"] or "distance" in one["test"] or one is written["teacher"]
    student = written["distilled"]["test"]
    assert ("accuracy" in student) == (name != "diabetes")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    own = [line[f"val_{monitor}"] for line in lines if line["phase"] == "student"]
    assert len(own) == 4
    assert evaluate_run(tmp_path / "run", tmp_path)[monitor] == pytest.approx(student[monitor])
    for ask in (classifier_only, predictor):
        with pytest.raises(RequestError, match=r"is for classifiers|predict gives classes"):
            ask(tmp_path / "run")
    assert result["out"] == str(tmp_path / "run")


def test_the_direction_of_a_verdict_is_the_monitors(tmp_path: Path) -> None:
    """A weight that leaves the labels nearly out, with a teacher that knows little: a higher error is worse."""
    teacher = {"model": "mlp", "hidden": [4], "epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-5}}
    spec = recipe("diabetes", teacher=teacher, distill={"task_weight": 0.01, "terms": [{"loss": "mse"}]}, epochs=6)
    found = compare(spec, ["recipe"], [0, 1, 2], root=tmp_path, out=tmp_path / "out", machine=QUIET)
    row, alone = found["methods"]["recipe"], found["methods"]["baseline"]
    assert (row["monitor"], row["mode"]) == ("rmse", "min")
    assert row["test"]["rmse"] == pytest.approx(row["mean"])
    assert row["mean"] > alone["mean"]
    assert (row["difference"] > 0, row["verdict"]) == (True, "worse")
    assert join([tmp_path / "out"])["methods"] == found["methods"]


def test_tokens_are_not_taken_for_whole_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An accuracy of tokens has finer steps than one of 1 / sentences, below which no spread would be taken."""
    known: list[int] = []
    summed = comparison.summarise

    def counting(results: Any, rules: Any) -> Any:
        known.append(rules.samples)
        return summed(results, rules)

    monkeypatch.setattr(comparison, "summarise", counting)
    compare(recipe("tokens", epochs=1), ["recipe"], [0], root=tmp_path, out=tmp_path / "out", machine=QUIET)
    assert known == [0]
    assert [scored(task, 9) for task in (Classification(), TokenClassification(), Regression())] == [9, 0, 0]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(recipe("masks"), root=tmp_path, out=tmp_path / "whole", machine=QUIET)
    half = run(recipe("masks", epochs=4), root=tmp_path, out=tmp_path / "half", machine=QUIET)
    (tmp_path / "half" / "result.json").unlink()
    again = run(recipe("masks"), root=tmp_path, out=tmp_path / "half", resume=True, machine=QUIET)
    assert whole["distilled"]["test"] == half["distilled"]["test"] == again["distilled"]["test"]


def test_embeddings_are_learned_without_labels(tmp_path: Path) -> None:
    spec = check(
        {
            "data": {"name": f"{HERE}:vectors", "batch_size": 30, "validation": 0.2},
            "teacher": {"model": f"{HERE}:trained_encoder"},
            "student": {"model": f"{HERE}:encoder", "width": 8},
            "distill": {"task_weight": 0, "terms": [{"loss": "mse"}]},
            "epochs": 12,
            "optimizer": FAST,
        }
    )
    result = run(spec, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert "baseline" not in result
    assert result["distilled"]["monitor"] == "similarity"
    assert result["distilled"]["test"]["similarity"] > 0.8
    with pytest.raises(RequestError, match="stands beside the baseline"):
        compare(spec, ["recipe"], [0], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)


def test_a_forest_teaches_a_perceptron() -> None:
    data = made.diabetes()
    forest = RandomForestRegressor(20, random_state=0).fit(data.train.inputs.numpy(), data.train.targets.numpy())
    teacher = FunctionTeacher(lambda x: forest.predict(x), numpy=True)
    student = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
    distiller = Distiller(student, [Term(losses.mse, weight=0.5)], task_weight=0.5, task=Regression())
    loader, test = make_loader(data.train, 32, shuffle=True), make_loader(data.test, 50)
    before = evaluate(student, test, task=Regression())
    fit(distiller, loader, teacher=teacher, val=test, epochs=10, optimizer=partial(Adam, lr=0.01), progress=False)
    after = evaluate(student.eval(), test, task=Regression(), teacher=teacher)
    assert after.score < before.score
    assert after["distance"] < 0.5
    assert len(load_diabetes().data) == len(data.train) + len(data.test)


def test_losses_on_maps_leave_out_what_the_task_ignores() -> None:
    z, t, y = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    y[0, :3] = 255
    batch = Batch(torch.zeros(2, 1), y, torch.arange(2))
    student = nn.Identity()
    distiller = Distiller(
        student, [Term(losses.kd, temperature=2.0)], task_weight=0, task=Segmentation(ignore_index=255)
    )
    found = distiller(batch._replace(inputs=z), TeacherOutput(t)).loss
    kept = y != 255
    zs, ts = (x.permute(0, 2, 3, 1)[kept].double() / 2 for x in (z, t))
    expected = 4 * F.kl_div(zs.log_softmax(1), ts.softmax(1), reduction="batchmean")
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_accumulated_token_means_are_those_of_one_step() -> None:
    """Batches with other numbers of labelled tokens: the mean is over all tokens of the step."""
    data = made.tokens()
    targets = data.train.targets.clone()
    targets[::2, 3:] = -100
    torch.manual_seed(0)
    start = made.reader(input_shape=(7,), classes=3).state_dict()
    weights = []
    for size, accumulate in ((24, 1), (4, 6)):
        student = made.reader(input_shape=(7,), classes=3)
        student.load_state_dict(start)
        loader = [(data.train.inputs[at : at + size], targets[at : at + size]) for at in range(0, 48, size)]
        distiller = Distiller(student, task=data.task)
        sgd = partial(torch.optim.SGD, lr=0.5)
        fit(distiller, loader, epochs=1, optimizer=sgd, accumulate_steps=accumulate, progress=False)
        weights.append(student[2].weight.detach())
    torch.testing.assert_close(*weights)


def test_likeliest_classes_of_maps_are_stored_and_read_back(tmp_path: Path) -> None:
    logits = torch.randn(3, 5, 4, 4)
    for k in (5, 2):
        back = Coding("float32", top_k=k).decode(Coding("float32", top_k=k).encode(TeacherOutput(logits)), 5).output
        assert back is not None
        expected = logits.softmax(1)
        top = expected.topk(k, 1)
        torch.testing.assert_close(back.softmax(1).gather(1, top.indices), top.values)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_generator_makes_epochs_of_so_many_steps(epochs: int) -> None:
    seen: list[int] = []

    def endless() -> Any:
        number = 0
        while True:
            seen.append(number)
            yield torch.full((4, 3), float(number)), torch.tensor([0, 1, 0, 1])
            number += 1

    student = nn.Linear(3, 2)
    sgd = partial(torch.optim.SGD, lr=0.01)
    done = fit(Distiller(student), endless(), epochs=epochs, steps_per_epoch=3, optimizer=sgd, progress=False)
    assert seen == list(range(3 * epochs))
    assert len(done.metrics) == epochs
    with pytest.raises(RequestError, match="steps_per_epoch=1000"):
        fit(Distiller(student), endless(), epochs=1, optimizer=sgd, progress=False)


def absolute(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (output - targets).abs().mean()


def rare_first(targets: torch.Tensor) -> torch.Tensor:
    return (targets > targets.median()).double() + 0.1


def test_a_recipe_names_its_task_with_a_loss_and_how_samples_are_drawn(tmp_path: Path) -> None:
    here = __name__
    task = {"name": "regression", "loss": f"{here}:absolute"}
    data = {"name": f"{HERE}:diabetes", "batch_size": 32, "sampling": f"{here}:rare_first"}

    def go(name: str, **changes: Any) -> Any:
        spec = recipe("diabetes", task=task, data=data | changes, keep="last")
        return run(spec, root=tmp_path, out=tmp_path / name, machine=QUIET)

    assert go("drawn")["baseline"]["test"] != go("plain", sampling="uniform")["baseline"]["test"]
    with pytest.raises(RequestError, match="balanced needs a class a sample"):
        go("balanced", sampling="balanced")

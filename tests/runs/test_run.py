from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from limbeck.engine import make_fabric
from limbeck.errors import RequestError
from limbeck.models import mlp
from limbeck.recipes.read import check, read
from limbeck.runs import components, learners
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.folder import choose, claimed, opened
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.runs.train import Job
from limbeck.teachers import FunctionTeacher

SMALL: dict[str, Any] = {
    "name": "small",
    "teacher": {"model": "mlp", "hidden": [32], "epochs": 3, "optimizer": {"name": "adam", "lr": 0.01}},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}]},
    "epochs": 3,
    "optimizer": {"name": "adam", "lr": 0.01},
}
QUIET = Machine(accelerator="cpu", progress=False)


def go(out: Path, changes: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return run(check(SMALL | (changes or {})), root=out.parent, out=out, machine=QUIET, **options)


def test_the_folder_holds_what_other_tools_rely_on(tmp_path: Path) -> None:
    result = go(tmp_path / "run")
    out = tmp_path / "run"
    assert {p.name for p in out.iterdir()} >= {
        "recipe.yaml", "environment.json", "metrics.jsonl", "checkpoints", "student.safetensors", "student.json",
        "result.json",
    }  # fmt: skip
    written = json.loads((out / "result.json").read_text())
    assert written == {key: value for key, value in result.items() if key != "out"}
    for name, epochs in (("teacher", 3), ("baseline", 3), ("distilled", 3)):
        assert written[name]["epochs"] == epochs
        assert 0.3 < written[name]["test_accuracy"] <= 1
        assert written[name]["seconds"] > 0
    assert written["baseline"]["parameters"] == written["distilled"]["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    phases = [json.loads(line)["phase"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [phase for phase in phases if phase != "teacher"] == ["baseline"] * 3 + ["student"] * 3


def test_the_student_loads_into_a_plain_model(tmp_path: Path) -> None:
    result = go(tmp_path / "run")
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    plain.load_state_dict(load_file(tmp_path / "run" / "student.safetensors"))
    from limbeck.data import load

    test = load("digits", tmp_path).test
    logits = plain(test.inputs.float() / 255)
    accuracy = (logits.argmax(-1) == test.targets).float().mean().item()
    assert accuracy == pytest.approx(result["distilled"]["test_accuracy"])


def test_baseline_and_distilled_start_alike_and_see_the_same_order(tmp_path: Path) -> None:
    # A term of weight 0 makes the distilled run a second baseline: the same start, order and dropout, to the bit.
    changes = {
        "student": {"model": "mlp", "hidden": [8], "dropout": 0.3},
        "distill": {"task_weight": 1.0, "terms": [{"loss": "kd", "weight": 0.0}]},
    }
    go(tmp_path / "run", changes)
    weights = [(tmp_path / "run" / f"{name}.safetensors").read_bytes() for name in ("baseline", "student")]
    assert weights[0] == weights[1]


def test_the_resolved_recipe_repeats_the_run(tmp_path: Path) -> None:
    go(tmp_path / "one", baseline=False)
    again = read(str(tmp_path / "one" / "recipe.yaml"))
    run(again, root=tmp_path, out=tmp_path / "two", machine=QUIET, baseline=False)
    assert (tmp_path / "one" / "student.safetensors").read_bytes() == (
        tmp_path / "two" / "student.safetensors"
    ).read_bytes()
    assert "baseline" not in json.loads((tmp_path / "two" / "result.json").read_text())


def test_a_trained_teacher_is_kept_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    first = go(tmp_path / "one", baseline=False)["teacher"]
    second = go(tmp_path / "two", {"seed": 1}, baseline=False)["teacher"]
    assert (first["source"], second["source"]) == ("trained", "reused")
    assert first["test_accuracy"] == second["test_accuracy"]
    assert second["seconds"] == first["seconds"]
    kept = Path(first["weights"])
    before = kept.stat().st_mtime_ns
    time.sleep(0.01)
    assert go(tmp_path / "three", baseline=False, retrain_teacher=True)["teacher"]["source"] == "trained"
    assert kept.stat().st_mtime_ns > before
    other = SMALL["teacher"] | {"epochs": 2}
    assert go(tmp_path / "four", {"teacher": other}, baseline=False)["teacher"]["source"] == "trained"


def test_given_weights_with_a_wrappers_prefix(tmp_path: Path) -> None:
    teacher = mlp(input_shape=(1, 8, 8), classes=10, hidden=(32,))
    files = {
        "plain.safetensors": {},
        "wrapped.pt": {"state_dict": {f"module._orig_mod.{k}": v for k, v in teacher.state_dict().items()}},
    }
    save_file(teacher.state_dict(), tmp_path / "plain.safetensors")
    torch.save(files["wrapped.pt"], tmp_path / "wrapped.pt")
    results = [
        go(
            tmp_path / f"run-{file}",
            {"teacher": {"model": "mlp", "hidden": [32], "weights": str(tmp_path / file)}},
            baseline=False,
        )
        for file in files
    ]
    assert results[0]["teacher"]["source"] == "given"
    assert results[0]["distilled"]["test_accuracy"] == results[1]["distilled"]["test_accuracy"]


def test_several_teachers_are_an_ensemble(tmp_path: Path) -> None:
    members = [SMALL["teacher"], SMALL["teacher"] | {"seed": 1, "weight": 2.0}]
    terms = [{"loss": "kd", "weight": 0.5}, {"loss": "mse", "student": "1", "teacher": "1.1", "adapter": "auto"}]
    result = go(tmp_path / "run", {"teacher": members, "distill": {"terms": terms}})
    assert len(result["teacher"]) == 2
    assert result["teacher"][0]["test"]["loss"] != result["teacher"][1]["test"]["loss"]


def test_teacher_and_student_each_with_their_own_input(tmp_path: Path) -> None:
    changes = {
        "teacher": SMALL["teacher"] | {"model": "cnn", "size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        "student": {"model": "mlp", "hidden": [8], "mean": [0.3], "std": [0.4]},
    }
    changes["teacher"].pop("hidden")
    result = go(tmp_path / "run", changes)
    assert result["teacher"]["parameters"] == 3 * 16 * 9 + 32 + 16 * 32 * 9 + 64 + 330
    assert json.loads((tmp_path / "run" / "student.json").read_text())["input"]["mean"] == [0.3]


def test_evaluate_repeats_the_figures_of_the_run(tmp_path: Path) -> None:
    result = go(tmp_path / "run")["distilled"]
    figures = evaluate_run(tmp_path / "run", tmp_path)
    assert figures["accuracy"] == result["test_accuracy"]
    assert figures["loss"] == pytest.approx(result["test"]["loss"])
    assert figures["agreement"] == result["test"]["agreement"]
    with pytest.raises(RequestError, match="holds no finished run"):
        evaluate_run(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"model": "mpl"}}, "unknown model 'mpl'; did you mean mlp"),
        ({"student": {"model": "mlp", "hiden": [3]}}, "unknown option of model mlp 'hiden'; did you mean hidden"),
        ({"student": {"model": "torchvision:resnet19"}}, "unknown torchvision model 'resnet19'; did you mean resnet1"),
        ({"distill": {"terms": [{"loss": "kdd"}]}}, "unknown loss 'kdd'; did you mean"),
        ({"distill": {"terms": [{"loss": "kd", "tau": 3}]}}, "unknown option of loss kd 'tau'"),
        ({"distill": {"terms": [{"loss": "kd", "temperature": {"start": 8}}]}},
         r"option temperature of loss kd is \{'start': 8\}: write a number, such as 0\.5$"),
        ({"distill": {"terms": [{"loss": "mse", "student": "layer1"}]}}, r"unknown tap of the student .* 'layer1'"),
        ({"distill": {"terms": [{"loss": "mse", "teacher": "layer1"}]}}, r"unknown tap of the teacher .* 'layer1'"),
        ({"distill": {"terms": [{"loss": "mse", "student": "1", "teacher": "1"}]}}, r"\(2, 8\).*\(2, 32\)"),
        ({"teacher": {"model": "mlp"}}, "would be untrained"),
        ({"teacher": {"model": "mlp", "weights": "no.pt"}}, "there is no weights file no.pt"),
        ({"optimizer": {"name": "adan"}}, "unknown optimizer 'adan'; did you mean adam"),
        ({"schedule": {"name": "cosin"}}, "unknown schedule 'cosin'"),
        ({"data": {"name": "mnits"}}, "unknown data set 'mnits'; did you mean mnist"),
        ({"data": {"batch_size": 9999, "drop_last": True}}, "1437 samples do not fill one batch of 9999"),
        ({"student": {"model": "mlp", "weights": "no.pt"}}, "there is no weights file no.pt"),
        ({"student": {"model": "torchvision:resnet18"}}, r"student torchvision:resnet18 cannot read samples of shape"),
        ({"schedule": {"name": "step", "milestones": 3}}, "schedule step"),
        ({"teacher": [SMALL["teacher"], SMALL["teacher"]],
          "distill": {"terms": [{"loss": "mse", "teacher": "1"}]}}, "there are 2 teachers"),
    ],
)  # fmt: skip
def test_wrong_requests_write_nothing(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        go(tmp_path / "run", changes)
    assert not (tmp_path / "run").exists()


def test_different_class_counts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_teacher.py").write_text(
        "from torch import nn\ndef seven(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="the teacher knows 7 classes and the student 10"):
        go(tmp_path / "run", {"teacher": {"model": "own_teacher:seven"}})


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10), nn.Linear(10, 10))
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    changes = {"teacher": {"model": "mlp", "hidden": [32, 32], "weights": str(tmp_path / "other.safetensors")}}
    with pytest.raises(
        RequestError, match=r"missing 5\.bias.*unexpected 4\.bias.*1\.weight \(9, 64\) instead of \(32, 64\)"
    ):
        go(tmp_path / "run", changes)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(RequestError, match="cannot read the weights file"):
        go(tmp_path / "run", {"teacher": {"model": "mlp", "weights": str(tmp_path / "evil.pt")}})
    assert not (tmp_path / "pwned").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    go(tmp_path / "run", baseline=False)
    with pytest.raises(RequestError, match="is not empty; choose another --out, or --resume"):
        go(tmp_path / "run")
    with pytest.raises(RequestError, match=r"is a run of 3 epochs; .* anew for 4, .*: limbeck run .* --epochs 4 --out"):
        go(tmp_path / "run", {"epochs": 4}, resume=True)
    with pytest.raises(RequestError, match=r"holds another run \(.*epochs was 3 and is 4.*seed was .* choose another"):
        go(tmp_path / "run", {"epochs": 4, "seed": 9}, resume=True)
    dkd = {"distill": {"method": "dkd"}}  # whose ramp keeps its share of the epochs
    go(tmp_path / "dkd", dkd | {"epochs": 1}, baseline=False)
    with pytest.raises(RequestError, match=r"is a run of 1 epoch; .* anew for 30"):
        go(tmp_path / "dkd", dkd | {"epochs": 30}, resume=True)


def test_two_runs_cannot_work_in_one_folder(tmp_path: Path) -> None:
    go(tmp_path / "run", baseline=False)
    (tmp_path / "run" / "result.json").unlink()
    with (
        claimed(tmp_path / "run", make_fabric(accelerator="cpu")),
        pytest.raises(RequestError, match="another run is at work in"),
    ):
        go(tmp_path / "run", baseline=False, resume=True)
    go(tmp_path / "run", baseline=False, resume=True)


def test_default_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outs = [run(check(SMALL), root=tmp_path, machine=QUIET, baseline=False)["out"] for _ in range(2)]
    assert outs == ["runs/small", "runs/small-2"]
    with pytest.raises(RequestError, match="every run in runs/small is finished"):
        choose(None, "small", resume=True)
    (tmp_path / "runs/small-2/result.json").rename(tmp_path / "runs/small-2/compare.json")
    with pytest.raises(RequestError, match="leave --resume out"):
        choose(None, "small", resume=True)
    assert choose(None, "other", resume=True) == Path("runs/other")
    (tmp_path / "runs/small-2/compare.json").unlink()
    assert choose(None, "small", resume=True) == Path("runs/small-2")


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fabric, count = make_fabric(accelerator="cpu"), 6
    at_once, done = threading.Barrier(count), threading.Barrier(count)

    def begin(number: int) -> Path:
        at_once.wait()
        with opened(None, "small", "name: small\n", False, fabric) as folder:
            done.wait()
        return folder

    with ThreadPoolExecutor(count) as pool:
        folders = list(pool.map(begin, range(count)))
    assert {str(folder) for folder in folders} == {"runs/small", *(f"runs/small-{n}" for n in range(2, count + 1))}
    assert all((folder / "recipe.yaml").exists() for folder in folders)
    with (
        claimed(tmp_path / "given", fabric),
        pytest.raises(RequestError, match="another run is at work in"),
        opened(tmp_path / "given", "small", "name: small\n", False, fabric),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RequestError, match="runs is a file; choose another --out"):
        run(check(SMALL), root=tmp_path, machine=QUIET, baseline=False)


def test_the_data_set_can_be_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_digits.py").write_text(
        "from pathlib import Path\nfrom limbeck.data import load\ndef digits(): return load('digits', Path())\n"
    )
    monkeypatch.chdir(tmp_path)
    result = go(tmp_path / "run", {"data": {"name": "own_digits:digits"}}, baseline=False)
    assert result["data"] == "digits"


def test_a_label_without_an_output_is_found_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_labels.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
        "x = torch.rand(40, 4)\n"
        "def data(): return TensorDataset(x, torch.arange(40) % 3), TensorDataset(x[:2], torch.tensor([1, 7]))\n"
        "def net(): return nn.Linear(4, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    changes = {"data": {"name": "own_labels:data"}, "student": {"model": "own_labels:net"}}
    with pytest.raises(RequestError, match=r"the test data of own_labels:data has the label 7, and the student 3"):
        go(tmp_path / "run", {**changes, "distill": {"scheme": "class-wise"}, "teacher": None})
    assert not (tmp_path / "run").exists()


def test_a_cache_that_cannot_keep_a_teacher_is_found_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RequestError, match="cannot be written; set LIMBECK_CACHE to another folder"):
        go(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_asked_once_about_the_test_set_for_all_students(tmp_path: Path) -> None:
    made = check(SMALL)
    data = components.data(made.data, tmp_path)
    job = Job(made, data, QUIET, QUIET.fabric("32-true"), tmp_path)
    asked = []

    def answer(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return nn.functional.one_hot(torch.arange(len(x)) % 10, 10) * 3.0

    teacher = FunctionTeacher(answer)
    first, second = (
        job.test(learners.alone(components.model(made.student, data, 0), made, data), teacher) for _ in range(2)
    )
    assert first == second
    assert asked[0] == 1, "a look at how large an output is"
    assert sum(asked[1:]) == len(data.test)


def test_students_see_the_views_of_the_recipe(tmp_path: Path) -> None:
    changes = {"data": {"name": "digits", "augment": ["crop", {"cutout": 2}], "views": 2}, "epochs": 3}
    result = go(tmp_path / "run", changes)
    plain = go(tmp_path / "plain", {"epochs": 3})
    assert result["baseline"]["test"]["loss"] != plain["baseline"]["test"]["loss"]
    again = go(tmp_path / "again", changes)
    assert result["distilled"]["test"]["loss"] == again["distilled"]["test"]["loss"]


def test_a_teacher_has_an_augmentation_of_its_own(tmp_path: Path) -> None:
    plain = go(tmp_path / "plain", {"epochs": 1})
    flipped = go(tmp_path / "run", {"teacher": SMALL["teacher"] | {"augment": ["flip"]}, "epochs": 1})
    assert flipped["teacher"]["test"]["loss"] != plain["teacher"]["test"]["loss"]
    assert flipped["teacher"]["source"] == "trained"
    assert flipped["baseline"]["test"]["loss"] == plain["baseline"]["test"]["loss"]


def test_large_images_are_tested_few_at_a_time(tmp_path: Path) -> None:
    recipe = read("digits", ["data.batch_size=64"])
    data = components.data(recipe.data, tmp_path)

    def at_once(size: int | None) -> int:
        student = recipe.student.model_copy(update={"size": size})
        return components.held_out_batch(recipe.model_copy(update={"student": student}), data)

    assert (at_once(None), at_once(512)) == (1000, 64)
    assert 64 < at_once(224) < 400

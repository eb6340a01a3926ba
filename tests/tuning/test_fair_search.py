"""Faults that a search must not have: mixed trials, good trials that are ended, scores that are no numbers."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limbeck.data import DataSet, InMemory
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.recipes.schema import Recipe
from limbeck.runs.machine import Machine
from limbeck.tasks import Regression
from limbeck.tuning import fresh as fresh_module
from limbeck.tuning import search as search_module
from limbeck.tuning.asked import Asked
from limbeck.tuning.budget import Budget
from limbeck.tuning.contenders import Contender
from limbeck.tuning.search import Search
from limbeck.tuning.trainer import Trained, Trainer
from limbeck.tuning.tune import tune

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64, "limit_samples": 200},
    "teacher": {"model": "mlp", "hidden": [8], "epochs": 1, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5, "temperature": 2}]},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}


def go(out: Path, content: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    options = {name: given.pop(name) for name in ("resume", "variants") if name in given}
    asked = Asked(**{"methods": ["recipe"], "trials": 1, "fresh": 1, **given})
    machine = Machine(accelerator="cpu", progress=False)
    return tune(check(SMALL | (content or {})), asked, root=out, out=out, machine=machine, **options)


def line() -> DataSet:
    """Noise around a plane."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(120, 3, generator=draw)
    y = x.sum(1) + 0.3 * torch.randn(120, generator=draw)
    parts = InMemory(x[:80], y[:80]), InMemory(x[80:], y[80:])
    return DataSet("line", *parts, classes=1, input_shape=(3,), task=Regression())


def searching(mode: str = "max") -> Search:
    """A search of which nothing but its rules is used."""
    trainer: Any = SimpleNamespace(scored=0, mode=mode, monitor="score")
    return Search([], {}, trainer, Budget(9), print)


@pytest.mark.parametrize("sign", [1, -1])
def test_where_the_best_epoch_is_kept_a_trial_that_has_fallen_behind_is_still_ahead(sign: int) -> None:
    # The best so far ends at 0.80; the other has been at 0.90 and has memorised since.
    slow = [sign * (0.40 + 0.02 * epoch) for epoch in range(21)]
    fallen = [sign * one for one in (0.7, 0.9, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)]
    weak = [sign * 0.3] * 12
    search, mode = searching("max" if sign > 0 else "min"), {"epochs": 21}
    best = check(SMALL | mode | {"keep": "best", "data": {"batch_size": 64, "validation": 0.2}})
    assert search._lost(fallen, best, {"curve": slow}) is None
    for scores, recipe in ((weak, best), (fallen, check(SMALL | mode))):
        assert search._lost(scores, recipe, {"curve": slow}) is not None


def test_optimism_is_above_zero_where_the_search_promised_too_much_also_of_errors(tmp_path: Path) -> None:
    found = go(tmp_path / "out", {"data": {"name": f"{__name__}:line"}, "distill": {"terms": [{"loss": "mse"}]}})
    assert found["mode"] == "min"
    for name in ("baseline", "recipe"):
        tested = statistics.mean(found[name]["fresh"].values())
        assert found["optimism"][name] == pytest.approx(tested - found[name]["best"]["validation"])


def test_a_score_that_is_no_number_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.5, math.nan, math.inf, 0.4, 0.6, 0.1, 0.1])
    monkeypatch.setattr(search_module, "score_of", lambda *given: next(scores))
    found = go(tmp_path / "out", trials=3)
    for name, failed, best in (("baseline", "nan", 0), ("recipe", "inf", 2)):
        one = found[name]["history"][1]
        assert (one["state"], one["value"], one["reason"]) == ("failed", None, f"validation accuracy is {failed}")
        assert found[name]["best"]["trial"] == best


@pytest.mark.parametrize("number", [0, 1])
def test_an_error_of_the_users_own_code_ends_a_trial_but_the_first_one_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    train = Trainer.train

    def failing(self: Trainer, contender: Contender, recipe: Recipe, out: Path, **given: Any) -> Trained:
        if out.name.endswith(f"-{number}"):
            raise KeyError("a key of their own")
        return train(self, contender, recipe, out, **given)

    monkeypatch.setattr(Trainer, "train", failing)
    if number == 0:
        with pytest.raises(KeyError) as raised:
            go(tmp_path / "out", trials=3)
        assert raised.value.__notes__ == ["baseline, trial 1"]
        return
    found = go(tmp_path / "out", trials=3)
    for name in ("baseline", "recipe"):
        assert [one["state"] == "failed" for one in found[name]["history"]] == [False, True, False]
        assert found[name]["history"][1]["reason"] == "'a key of their own'"


def test_a_search_may_be_resumed_with_fewer_fresh_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, calls = fresh_module.write_json, []

    def dying(*given: Any) -> None:
        calls.append(given)
        if len(calls) == 5:  # the baseline with the third seed
            raise KeyboardInterrupt
        written(*given)

    with monkeypatch.context() as patched:
        patched.setattr(fresh_module, "write_json", dying)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "out", fresh=3)
    found = go(tmp_path / "out", fresh=1, resume=True)
    assert list(found["baseline"]["fresh"]) == ["1", "2", "3"]
    assert list(found["recipe"]["fresh"]) == ["1", "2"]


def test_trials_of_a_variant_are_not_mixed_with_those_of_another(tmp_path: Path) -> None:
    def variants(loss: str) -> dict[str, Any]:
        return {"other": check(SMALL | {"distill": {"task_weight": 0.5, "terms": [{"loss": loss, "weight": 0.5}]}})}

    found = go(tmp_path / "out", methods=["other"], variants=variants("mse"))
    assert found["other"]["trials"] == 1, "a variant may be a contender though a validation split is cut off"
    wider = check(SMALL | {"student": {"model": "mlp", "hidden": [9]}})
    with pytest.raises(RequestError, match="variant wider changes student too"):
        go(tmp_path / "other", methods=["wider"], variants={"wider": wider})
    go(tmp_path / "out", methods=["other"], variants=variants("mse"), resume=True)
    with pytest.raises(RequestError, match=r"holds another search \(contenders.other.*was 'mse' and is 'pearson'"):
        go(tmp_path / "out", methods=["other"], variants=variants("pearson"), resume=True)


def test_what_is_said_of_a_trial() -> None:
    def told(**record: Any) -> str:
        whole = {"state": "complete", "value": None, "reason": None, "seconds": 2.0, "epochs": 3, **record}
        contender: Any = SimpleNamespace(name="recipe", label="kd")
        return searching()._line(contender, 1, whole, {"value": 0.5})

    assert told(value=0.6) == "kd, trial 2 of 9: score 0.6000, best so far 0.5000 (2.0 s)"
    pruned = told(value=0.4, state="pruned")
    assert pruned == "kd, trial 2 of 9: score 0.4000, best so far 0.5000, ended after epoch 3 (2.0 s)"
    failed = told(state="failed", reason="the loss is not finite")
    assert failed == "kd, trial 2 of 9: best so far 0.5000, failed: the loss is not finite (2.0 s)"

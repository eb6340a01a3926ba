"""A sharded teacher teaches what a whole one does; in processes as torchrun starts them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import forked
from limbeck.cli.main import main
from limbeck.engine.devices import sharding
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

TEACHER = {"model": "mlp", "hidden": [32, 16], "epochs": 2, "shard": True}
RECIPE = {
    "name": "shards",
    "data": {"name": "digits", "batch_size": 64, "drop_last": True},
    "teacher": TEACHER,
    "student": {"model": "mlp", "hidden": [16]},
    "distill": {"terms": [{"loss": "kd"}, {"loss": "mse", "student": "2", "teacher": "4"}]},
    "epochs": 2,
    "optimizer": {"name": "sgd", "lr": 0.05},
}


@forked.needed
@pytest.mark.skipif(not sharding.ON_CPU, reason="this torch shards on GPUs only")
def test_a_sharded_teacher_teaches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shards.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    alone = tmp_path / "alone"
    run(check(RECIPE), root=tmp_path, out=alone, machine=Machine(accelerator="cpu", progress=False), baseline=False)
    command = ["limbeck", "run", str(file), "--no-baseline", "--accelerator", "cpu", "--out", str(tmp_path / "two")]
    monkeypatch.setattr(sys, "argv", command)
    forked.by_two(main)
    assert capfd.readouterr().out.count("distilled student") == 1  # one of the processes speaks
    expected, found = (load_file(folder / "student.safetensors") for folder in (alone, tmp_path / "two"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("more", [{"dtype": "bfloat16"}, {"store": "disk"}, {"store": "s3://bucket/outputs"}])
def test_what_shards_cannot_do_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="a sharded teacher"):
        check(RECIPE | {"teacher": TEACHER | more})

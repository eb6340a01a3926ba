"""`limbeck ship` on runs on real data: is int8 as good as fp32, how large and how fast is it, and what hurts it?

Runs that are finished in runs/NAME are taken as they are; others are trained here, two of them with fewer epochs than
their recipes have, as their teachers take most of an hour on a core. The student of fashion-mobilenet is a MobileNetV1
of a quarter of the width, whose channels have ranges far apart, which int8 hurts. `quick` ships the first alone. Data
root: MNIST, Fashion-MNIST and CIFAR-10 as torchvision reads them; where it has train/ and test/, these are taken for
CIFAR-10.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.models.networks.mobilenet import mobilenet_v1
from limbeck.recipes import schema
from limbeck.recipes.read import check, read
from limbeck.runs.folder import RECIPE, RESULT
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.shipping import ship

RECORD = Path(__file__).parent / "results" / "ship.json"
UNEVEN = 6.0
"""Binary logarithm of how far a channel's range may lie from the middle one's."""
HURT: dict[str, Any] = {
    "name": "fashion-mobilenet",
    "data": {"name": "fashion-mnist", "batch_size": 64, "validation": 0.1, "limit_samples": 20000},
    "teacher": {"model": "cnn", "channels": [32, 64, 128], "epochs": 3, "optimizer": {"lr": 3.0e-3}},
    "student": {"model": "benchmarks.ship:uneven_mobilenet"},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5, "temperature": 4}]},
    "epochs": 3,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "schedule": {"name": "cosine"},
}
ROW = ("model", "runtime", "precision", "bytes", "score", "interval", "beside_baseline", "agreement", "latency")
MORE = ("calibration_error", "ratio_to_teacher", "peak_memory_bytes", "multiply_adds")
HOW = ("chosen_on", "fp32_score", "tolerance", "scheme", "left_out", "validation_drop", "test_drop", "refused")
WHY = ("harmful_layers", "layer_errors", "retraining", "attempts", "seconds")


def uneven_mobilenet(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """MobileNetV1 at a quarter of its width, whose depthwise convolutions' channels have ranges that lie far apart.

    So they lie in trained MobileNets too (Nagel et al., arXiv 1906.04721, figure 2): one scale for all channels of an
    activation, or for all inputs of a weight, then leaves the small ones nothing. It starts as the same function as
    the network with even ranges.
    """
    network = mobilenet_v1(input_shape=input_shape, classes=classes, width=0.25, stem_stride=1)
    generator = torch.Generator().manual_seed(0)
    for name, norm in network.named_modules():
        if isinstance(norm, nn.BatchNorm2d) and ".depthwise." in name:
            following = network.get_submodule(f"{name.partition('.depthwise.')[0]}.pointwise")
            pointwise = next(one for one in following.modules() if isinstance(one, nn.Conv2d))
            scale = 2 ** (UNEVEN * (2 * torch.rand(norm.num_features, generator=generator) - 1))
            with torch.no_grad():
                norm.weight.mul_(scale)
                pointwise.weight.div_(scale.view(1, -1, 1, 1))
    return network


def main(data_root: Path, quick: bool = False, only: Sequence[str] = ()) -> dict[str, Any]:
    """Train, ship, print and return what ship.json says of each run; with `only`, those, beside what is recorded."""
    validated = ["data.validation=0.1"]
    images = ["data.name=image-folder"] if (data_root / "train").is_dir() else []
    recipes: list[schema.Recipe] = [read("digits", ["data.validation=0.2"])]
    if not quick:
        short = {epochs: [*validated, f"teacher.epochs={epochs}", f"epochs={epochs}"] for epochs in (2, 4)}
        recipes += [read("mnist-cnn", short[2]), read("fashion-cnn:best"), check(HURT)]
        recipes += [read("cifar10-tutorial:best", [*short[4], *images])]
    before = json.loads(RECORD.read_text(encoding="utf-8"))["figures"] if only and RECORD.exists() else {}
    return before | {one.name: _shipped(one, data_root) for one in recipes if not only or one.name in only}


def _shipped(recipe: schema.Recipe, root: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path("runs") / recipe.name
        if not (place / RESULT).exists():
            place = Path(folder) / recipe.name
            run(recipe, root=root, out=place, machine=Machine(accelerator="cpu", progress=False))
        epochs = read(str(place / RECIPE)).epochs  # a run that is taken may have others than the recipe here
        found = ship(place, root=root, out=Path(folder) / "first")
        options: dict[str, Any] = {"formats": ["onnx", "onnx-int8"], "memory": False, "seconds": 10}
        again = ship(place, root=root, out=Path(folder) / "again", **options)
    rows = [{key: row.get(key) for key in (*ROW, *MORE)} for row in found["rows"]]
    for row in rows:
        _print(row)
    (chosen,) = found["chosen"].values()
    how = {name: {key: one[key] for key in (*HOW, *WHY)} for name, one in chosen.items()}
    for name, one in how.items():
        print(f"int8 of {name}: {one['refused'] or one['scheme']}")
    told = {"rows": rows, "chosen": how, "machine": found["machine"], "slower": found["slower"]}
    return {**told, "ratios_of_two_calls": _ratios(found, again), "data": recipe.data.name, "epochs": epochs}


def _ratios(found: dict[str, Any], again: dict[str, Any]) -> dict[str, list[float]]:
    """How many times as fast as the teacher the ONNX files are, in two calls."""
    both: dict[str, list[float]] = {}
    for one in (found, again):
        for row in one["rows"]:
            if row["runtime"] == "onnx" and row["model"] != "teacher" and "1" in row["ratio_to_teacher"]:
                both.setdefault(f"{row['model']} {row['precision']}", []).append(row["ratio_to_teacher"]["1"]["ratio"])
    return {name: ratios for name, ratios in both.items() if len(ratios) == 2}


def _print(row: dict[str, Any]) -> None:
    low, high = row["interval"]
    times = "  ".join(f"{one['p50_ms']:8.3f} ms at {batch}" for batch, one in row["latency"].items())
    what = f"{row['model']:10} {row['runtime']:13} {row['precision']:5}"
    print(f"{what} {row['score']:.4f} ({low:.4f} to {high:.4f}) {row['bytes']:>10,} bytes  {times}", flush=True)

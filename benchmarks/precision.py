"""Is the faster training as good? The teacher of `cifar10-tutorial` in fp32 and in bf16 autocast, accuracies by seed.

A short schedule: two epochs of the first 25,000 training images with cosine decay, the same starts and data order for
both. Folders list a class after the other, so "first" is taken of a fixed shuffle.
The data root holds CIFAR-10 as torchvision reads it, or train/ and test/ folders of images.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from limbeck import Distiller, Hardware, fit
from limbeck.compare import difference
from limbeck.data import make_loader
from limbeck.engine.optimizers.named import cosine
from limbeck.measure import evaluate
from limbeck.recipes.read import read
from limbeck.runs import components
from limbeck.taps import evaluating

SAMPLES, EPOCHS, SEEDS = 25_000, 2, (0, 1, 2)
PRECISIONS = ("32-true", "bf16-mixed")


def main(data_root: Path) -> dict[str, Any]:
    """Train, print and return the accuracies, their paired differences and the seconds of each training."""
    recipe = read("cifar10-tutorial", ["data.name=image-folder"] if (data_root / "train").is_dir() else [])
    spec, data = recipe.teachers[0], components.data(recipe.data, data_root)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    data = replace(data, train=data.train.subset(order[:SAMPLES]))
    test = make_loader(data.test, 1000)
    accuracies: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed in SEEDS:
        for precision in PRECISIONS:
            scheme = Distiller(components.model(spec, data, seed), inputs=components.inputs(spec))
            run = fit(
                scheme,
                make_loader(data.train, recipe.data.batch_size, shuffle=True, seed=seed),
                epochs=EPOCHS,
                optimizer=components.optimizer(spec.optimizer),
                schedule=cosine(EPOCHS),
                precision=precision,
                hardware=Hardware("cpu"),
                seed=seed,
                progress=False,
            )
            with evaluating(scheme):
                accuracies[precision].append(evaluate(scheme.predict, test)["accuracy"])
            seconds[precision].append(run.seconds)
            print(f"seed {seed}  {precision:10}  {accuracies[precision][-1]:.4f}  {run.seconds:6.1f} s", flush=True)
    pairs = [half - full for full, half in zip(*accuracies.values(), strict=True)]
    found = difference(pairs, resolution=1 / len(data.test))
    print(
        f"bf16 − fp32: {found['difference']:+.4f}  (95 %: {found['interval'][0]:+.4f} to {found['interval'][1]:+.4f})"
    )
    means = {precision: statistics.mean(values) for precision, values in accuracies.items()}
    return {"accuracies": accuracies, "means": means, **found, "seconds": seconds, "samples": SAMPLES, "epochs": EPOCHS}

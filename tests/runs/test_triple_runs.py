"""MarginMSE from files of queries and texts: from the recipe to the student's ranking, and in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck import Distiller, Term, fit, losses
from limbeck.data import make_loader
from limbeck.data.text.texts import IDS
from limbeck.models.build import build
from limbeck.recipes.read import check
from limbeck.runs import components
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.types import MASK

QUIET = Machine(accelerator="cpu", progress=False)
WORDS = ["red", "green", "blue", "old", "new", "small", "large", "round"]
THINGS = ["stone", "leaf", "river", "house", "cloud", "coin"]
TRIPLES = [
    (f"{word} {thing}", f"a {thing} that is {word}", f"a {THINGS[n - 1]} that is not {word}")
    for word in WORDS
    for n, thing in enumerate(THINGS)
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triples")
    names = ("query", "positive", "negative")
    rows = [json.dumps(dict(zip(names, one, strict=True))) + "\n" for one in TRIPLES]
    (folder / "triples.jsonl").write_text("".join(rows))
    return folder


def recipe(**changes: Any) -> Any:
    options = {"train": "triples.jsonl", "tokenizer": "bytes", "length": 40, "width": 16}
    return check(
        {
            "name": "triples",
            "data": {"name": "text-triples", "batch_size": 12, "options": options},
            "teacher": {"model": f"{__name__}:words", "store": "memory"},
            "student": {"model": "bag_of_embeddings", "dim": 16, "bigrams": 64},
            "distill": {"task_weight": 0, "terms": [{"loss": "margin_mse"}]},
            "epochs": 12,
            "optimizer": {"name": "adamw", "lr": 0.03},
            **changes,
        }
    )


class Words(torch.nn.Module):
    """An encoder that tells letters apart by fixed vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(258, 16)
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(258, 16, generator=torch.Generator().manual_seed(0)))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        counted = attention_mask[..., None].float()
        return 3 * (self.table(input_ids) * counted).sum(1) / counted.sum(1)


def words() -> torch.nn.Module:
    return Words()


def test_a_recipe_teaches_margins_from_its_file_alone(root: Path, tmp_path: Path) -> None:
    result = run(recipe(), root=root, out=tmp_path / "run", machine=QUIET)
    tested = result["distilled"]["test"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    seen = [line["margin_mse"] for line in lines if "margin_mse" in line]
    assert seen[-1] < 0.3 * seen[0]
    assert tested["triplet_agreement"] >= 0.75
    assert result["teacher_outputs"][0]["where"] == "memory"


def test_the_loss_of_an_epoch_is_that_of_its_triples(root: Path) -> None:
    data = components.data(recipe().data, root)
    assert data.task is not None
    torch.manual_seed(1)
    student = build("bag_of_embeddings", input_shape=(40,), classes=16, vocab=258, dim=8)
    whole = next(iter(make_loader(data.train, len(data.train)))).inputs
    margins = []
    for network in (words(), student):
        with torch.no_grad():
            vectors = network(input_ids=whole[IDS], attention_mask=whole[MASK]).double().numpy()
        margins.append([query @ fits - query @ other for query, fits, other in vectors.reshape(-1, 3, 16)])
    done = fit(
        Distiller(student, [Term(losses.margin_mse)], task_weight=0, task=data.task),
        make_loader(data.train, 12, shuffle=True),
        teacher=words(),
        epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-20),
        progress=False,
    )
    assert done.metrics[0]["margin_mse"] == pytest.approx(np.square(np.subtract(*margins)).mean(), rel=1e-5)

"""No step asks its device for a value: a GPU would have to be waited for. torch's meta device knows no values."""

from __future__ import annotations

import pytest
import torch

from limbeck import Batch, TeacherOutput
from limbeck.data import DataSet, InMemory
from limbeck.engine.optimizers.named import optimizer
from limbeck.recipes.methods import METHODS
from limbeck.recipes.read import check
from limbeck.runs import components, teachers
from limbeck.runs.stages import assemble

META = torch.device("meta")
SPLIT = InMemory(torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8), torch.arange(32) % 7)
DATA = DataSet("made", SPLIT, SPLIT, 7, (3, 16, 16))
OWN = {
    "mutual": {"scheme": "mutual"},
    "class-wise": {"scheme": "class-wise"},
    "mean-teacher": {"scheme": "mean-teacher", "terms": [{"loss": "kd"}]},
    "self": {"scheme": "self"},
}


@pytest.mark.parametrize("name", [*METHODS, *OWN])
def test_a_step_of_every_way_to_distil(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    distill = OWN.get(name, {"method": name})
    student = {"model": "byot_small", "widths": [4, 6, 8]} if name == "self" else {"model": "resnet8"}
    recipe = check({"teacher": {"model": "resnet14", "epochs": 1}, "student": student, "distill": distill})
    found = teachers.candidates(recipe, DATA)
    _, scheme, online = assemble(recipe, components.model(recipe.student, DATA, 0), found, DATA)
    example = Batch(SPLIT.inputs[:8].float() / 255, SPLIT.targets[:8], torch.arange(8))
    teacher_output = online(example) if online else None
    scheme.prepare(example, teacher_output)

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)  # which knows no meta device
    scheme.to(META).train()
    for term in getattr(scheme, "terms", {}).values():
        term.place(META)
    there = example.to(META)
    if teacher_output is not None:
        logits = None if teacher_output.output is None else teacher_output.output.to(META)
        teacher_output = TeacherOutput(
            logits, {tap: tensor.to(META) for tap, tensor in teacher_output.features.items()}
        )
    make = optimizer("adam", lr=1e-3, fused=False)
    step = scheme(there, teacher_output)
    step.loss.backward()
    make(scheme.parameters()).step()
    assert (step.loss.device, step.output.device) == (META, META)
    assert all(part.device == META for part in step.parts.values())


def test_a_look_is_an_error_there() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        torch.zeros(2, device=META).max().item()

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from limbeck import Batch, EnsembleTeacher, ModuleTeacher
from limbeck.data import InMemory, make_loader
from limbeck.errors import RequestError
from limbeck.models import Preprocess
from limbeck.teachers import CachedTeacher, memory_need


def batch(n: int = 6) -> Batch:
    return Batch(torch.randn(n, 4), torch.zeros(n, dtype=torch.long), torch.arange(n))


def test_teacher_is_in_eval_whatever_mode_it_is_put_in_and_stays_as_it_was(teacher: nn.Module) -> None:
    teacher.train()
    before = copy.deepcopy(teacher.state_dict())
    guide = ModuleTeacher(teacher, ["0"])
    data = batch()
    first, second = guide(data), guide(data)
    torch.testing.assert_close(first.output, second.output)  # dropout is off
    assert all(module.training for module in teacher.modules())
    assert all(p.requires_grad for p in teacher.parameters())
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name])  # batch-norm statistics have not moved
    assert first.output is not None
    assert not first.output.requires_grad
    assert not first.features["0"].requires_grad
    torch.testing.assert_close(first.output, teacher.eval()(data.inputs))


def test_own_dtype_computes_on_a_copy_and_speaks_fp32(teacher: nn.Module) -> None:
    data = batch()
    exact = ModuleTeacher(teacher)(data).output
    rough = ModuleTeacher(teacher, dtype=torch.bfloat16)(data).output
    by_name = ModuleTeacher(teacher, dtype="bfloat16")(data).output
    assert rough is not None
    assert by_name is not None
    assert torch.equal(rough, by_name)
    with pytest.raises(RequestError, match=r"unknown dtype of a teacher 'bf16'; .*bfloat16"):
        ModuleTeacher(teacher, dtype="bf16")
    assert rough.dtype == torch.float32
    assert next(teacher.parameters()).dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.05


def test_fingerprint_names_weights_taps_dtype_and_input(teacher: nn.Module) -> None:
    prints = [
        ModuleTeacher(teacher).fingerprint,
        ModuleTeacher(teacher, ["0"]).fingerprint,
        ModuleTeacher(teacher, dtype=torch.bfloat16).fingerprint,
        ModuleTeacher(teacher, inputs=Preprocess([0.5], [0.5])).fingerprint,
    ]
    assert ModuleTeacher(copy.deepcopy(teacher)).fingerprint == prints[0]
    with torch.no_grad():
        teacher[0].bias[0] += 1e-3
    prints.append(ModuleTeacher(teacher).fingerprint)
    assert len(set(prints)) == 5


def test_ensemble_is_the_weighted_mean_of_probabilities() -> None:
    data = batch()
    members = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
    guide = EnsembleTeacher({name: ModuleTeacher(m) for name, m in members.items()}, {"a": 3, "b": 1})
    teacher_output = guide(data)
    expected = 0.75 * members["a"](data.inputs).softmax(-1) + 0.25 * members["b"](data.inputs).softmax(-1)
    torch.testing.assert_close(teacher_output.output.softmax(-1), expected)
    torch.testing.assert_close(teacher_output.features["b.logits"], members["b"](data.inputs))


def test_ensemble_members_taps_stay_readable(teacher: nn.Module) -> None:
    teacher_output = EnsembleTeacher([ModuleTeacher(teacher, ["0"]), ModuleTeacher(nn.Linear(4, 3))])(batch())
    assert set(teacher_output.features) == {"0.0", "0.logits", "1.logits"}


def test_ensemble_weights_are_checked() -> None:
    one = ModuleTeacher(nn.Linear(4, 3))
    with pytest.raises(RequestError, match="at least one teacher"):
        EnsembleTeacher([])
    with pytest.raises(RequestError, match="weights for 0"):
        EnsembleTeacher([one, one], [1.0])
    with pytest.raises(RequestError, match="not all 0"):
        EnsembleTeacher([one, one], [0.0, 0.0])


def test_a_remembered_teacher_says_what_the_live_one_says(teacher: nn.Module) -> None:
    split = InMemory(torch.randn(23, 4), torch.zeros(23, dtype=torch.long))
    online = ModuleTeacher(teacher, ["0"])
    cached = CachedTeacher(online, [make_loader(split, 5, shuffle=True)], 23)
    teacher.forward = None  # type: ignore[assignment]  # it is not asked again
    for batch in make_loader(split, 4, shuffle=True, seed=3):
        logits = nn.Sequential.forward(teacher.eval(), batch.inputs)
        teacher_output = cached(batch)
        torch.testing.assert_close(teacher_output.output, logits)
        torch.testing.assert_close(teacher_output.features["0"], teacher[0](batch.inputs))


def test_a_remembered_teacher_output_is_for_the_very_pixels(teacher: nn.Module) -> None:
    split = InMemory(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
    cached = CachedTeacher(ModuleTeacher(teacher), [make_loader(split, 4)], 8)
    batch = next(iter(make_loader(split, 4)))
    with pytest.raises(RequestError, match="known in 1 view"):
        cached(batch._replace(view=1))
    with pytest.raises(RequestError, match="index"):
        cached(batch._replace(index=torch.full((4,), -1)))


def test_a_remembered_teacher_output_leaves_no_sample_out(teacher: nn.Module) -> None:
    split = InMemory(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
    online, loader = ModuleTeacher(teacher), make_loader(split, 4)
    with pytest.raises(RequestError, match="not asked about sample 4 in view 0"):
        CachedTeacher(online, [list(loader)[:1]], 8)
    with pytest.raises(RequestError, match="a pass for each of 2 view"):
        CachedTeacher(online, [loader], 8, 2)
    with pytest.raises(RequestError, match="none of those that were asked about"):
        CachedTeacher(online, [loader], 8)(next(iter(loader))._replace(index=torch.tensor([0, 1, 2, 8])))


def test_a_remembered_teacher_output_follows_the_batches_to_their_device(teacher: nn.Module) -> None:
    split = InMemory(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
    cached = CachedTeacher(ModuleTeacher(teacher, ["0"]), [make_loader(split, 4)], 8)
    elsewhere = next(iter(make_loader(split, 4))).to(torch.device("meta"))
    logits, features = cached(elsewhere)
    assert logits is not None
    assert (logits.device.type, features["0"].device.type) == ("meta", "meta")
    with pytest.raises(RequestError, match="index is 8, none of those that were asked about"):
        cached(elsewhere._replace(index=torch.tensor([0, 1, 2, 8])))


def test_memory_need_counts_logits_and_taps(teacher: nn.Module) -> None:
    assert memory_need(ModuleTeacher(teacher, ["0"]), batch(2), 100) == 100 * (16 + 3) * 4

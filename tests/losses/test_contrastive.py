"""CRD: what it draws, remembers and restores."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.losses import CRD


def made(samples: int = 30, negatives: int = 50, **options: float) -> CRD:
    torch.manual_seed(0)
    return CRD.for_shapes((4, 5), (4, 6, 2, 2), samples=samples, negatives=negatives, dimension=8, **options)


def batch(*index: int, classes: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    positions = torch.tensor(index)
    return {
        "student": torch.randn(len(index), 5),
        "teacher": torch.randn(len(index), 6, 2, 2),
        "targets": positions % classes,
        "index": positions,
    }


def test_only_the_samples_of_the_batch_move_in_the_memory():
    crd = made(momentum=0.5)
    before_s, before_t = crd.memory_s.clone(), crd.memory_t.clone()
    given = batch(3, 7)
    crd(**given)
    for before, after in ((before_s, crd.memory_s), (before_t, crd.memory_t)):
        assert set((before != after).any(1).nonzero().flatten().tolist()) == {3, 7}
        torch.testing.assert_close(after.norm(dim=1), torch.ones(30))
    s = torch.nn.functional.normalize(crd.embed_s(given["student"]), dim=1)
    wanted = torch.nn.functional.normalize(0.5 * before_s[[3, 7]] + 0.5 * s, dim=1)
    torch.testing.assert_close(crd.memory_s[[3, 7]], wanted.detach())


def test_nothing_is_remembered_in_eval_mode():
    crd = made().eval()
    before = copy.deepcopy(crd.state_dict())
    crd(**batch(3, 7))
    assert all(torch.equal(before[k], v) for k, v in crd.state_dict().items())


def test_negatives_of_the_own_class_do_not_count():
    """With every label known, a change of the memory of one class leaves its own samples' loss as it was."""
    crd = made(negatives=200)
    crd(**batch(*range(30)))
    crd.eval()
    given = batch(1, 2)
    torch.manual_seed(2)
    before = crd(**given)
    own = [i for i in range(30) if i % 3 == 1 and i != 1]
    crd.memory_s[own] = -crd.memory_s[own]
    crd.memory_t[own] = -crd.memory_t[own]
    torch.manual_seed(2)
    after = crd(**given)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_draws_reach_all_samples_evenly():
    crd = made(samples=10, negatives=20_000)
    counts = torch.bincount(crd.draw(), minlength=10)
    assert (counts - 2000).abs().max() < 5 * math.sqrt(2000)


def test_the_expectation_is_that_of_negatives_drawn_for_each_sample():
    """Mean over many draws against K times the mean over all samples of other classes."""
    crd = made(negatives=40)
    crd(**batch(*range(30)))
    crd.eval().double()
    given = {k: v.double() if v.is_floating_point() else v for k, v in batch(1, 2).items()}
    with torch.no_grad():
        drawn = torch.stack([crd(**given) for _ in range(2000)])
        crd.draw = lambda: torch.arange(30)
        whole = crd(**given)
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - whole).abs() < 5 * error + 1e-3).all()


def test_z_makes_the_first_batch_average_to_one_over_n():
    crd = made(samples=50, negatives=400)
    given = batch(*range(4), classes=4)
    memory = crd.memory_t.clone()
    torch.manual_seed(5)
    drawn = crd.draw()
    torch.manual_seed(5)
    crd(**given)
    s = torch.nn.functional.normalize(crd.embed_s(given["student"]), dim=1)
    e = []
    for i, (v, y) in enumerate(zip(s, given["targets"], strict=True)):
        e += [torch.exp(v @ memory[i] / 0.07)]
        e += [torch.exp(v @ memory[d] / 0.07) for d in drawn if not (d < 4 and d % 4 == y)]
    mean = (torch.stack(e).mean() / crd.log_z[0].exp()).item()
    assert mean == pytest.approx(1 / 50, rel=1e-4)
    kept = crd.log_z.clone()
    crd(**batch(9, 11))
    assert torch.equal(crd.log_z, kept)


def test_a_checkpoint_holds_memory_labels_and_z():
    crd = made()
    crd(**batch(3, 7))
    other = made()
    other.load_state_dict(crd.state_dict())
    for loss in (crd, other):
        torch.manual_seed(3)
        loss(**batch(8, 9))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in crd.state_dict().items())
    fresh = made().state_dict()
    crd.load_state_dict(fresh)
    assert crd(**batch(1, 2)).isfinite().all()
    assert crd.log_z.isfinite().all()


def test_the_right_partner_costs_less():
    crd = made(samples=30, negatives=100)
    optimizer = torch.optim.SGD(crd.parameters(), 0.05)
    given = batch(*range(6), classes=6)
    values = []
    for _ in range(40):
        loss = crd(**given).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"index": torch.tensor([-1, 3])}, "loader"),
        ({"index": torch.tensor([3, 30])}, r"\[0, 30\)"),
        ({"index": torch.tensor([3])}, r"\(1,\)"),
        ({"targets": torch.rand(2, 3)}, "class indices"),
        ({"student": torch.rand(2, 4)}, r"\(2, 4\).*\(2, 6, 2, 2\)"),
    ],
)
def test_what_does_not_fit_is_named(change, word):
    with pytest.raises(RequestError, match=word):
        made()(**batch(3, 7) | change)


@pytest.mark.parametrize("options", [{"samples": 1}, {"negatives": 0}, {"temperature": 0.0}, {"momentum": 1.0}])
def test_options_that_do_not_fit(options):
    with pytest.raises(RequestError):
        made(**options)

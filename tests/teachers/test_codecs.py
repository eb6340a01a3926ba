"""Logits over many classes, stored compactly: what is read back, what it takes, and what is right in expectation."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck import Batch, RequestError, TeacherOutput, losses
from limbeck.data import InMemory, make_loader
from limbeck.losses import Sampled, TopK
from limbeck.teachers import StoredTeacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.description import Description
from limbeck.teachers.draws import draw, starts
from limbeck.teachers.packing import bits_for, coded, decoded, pack, unpack
from limbeck.teachers.stored import store

B, L, V = 4, 6, 300


def logits(seed: int = 0, spread: float = 2.0, shape: tuple[int, ...] = (B, L, V)) -> Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Speaking:
    """A teacher with a row of logits for each sample."""

    fingerprint = "speaking"

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __call__(self, batch: Batch) -> TeacherOutput:
        return TeacherOutput(self.table[batch.index])


def write(place: Any, table: Tensor, coding: Coding, size: int = 2, **changes: Any) -> None:
    loader = make_loader(InMemory(torch.zeros(len(table), 1), torch.zeros(len(table), dtype=torch.int64)), size)

    def batches(view: int, start: int, stop: int) -> Any:
        return islice(loader.starting_at(start // size), -(-(stop - start) // size))

    options = {"samples": len(table), "views": 1, "batch_size": size, "made_of": {}, "coding": coding}
    store(Speaking(table), batches, place, **options | changes)


def batch(*index: int) -> Batch:
    at = torch.tensor(index)
    return Batch(torch.zeros(len(at), 1), torch.zeros(len(at), dtype=torch.int64), at)


def test_packed_numbers_come_back_and_take_their_bits() -> None:
    draw = random.Random(0)
    for seed in range(3):
        for bits in range(1, 26):
            check_packed(bits, draw.randint(1, 40), seed)


def check_packed(bits: int, count: int, seed: int) -> None:
    numbers = torch.randint(2**bits, (2, 3, count), generator=torch.Generator().manual_seed(seed))
    packed = pack(numbers, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (2, 3, -(-count * bits // 8))
    assert torch.equal(unpack(packed, count, bits), numbers)
    plain = "".join(f"{int(n):0{bits}b}"[::-1] for n in numbers[1, 2])  # by hand, the lowest bit first
    plain += "0" * (-len(plain) % 8)
    assert packed[1, 2].tolist() == [int(plain[at : at + 8][::-1], 2) for at in range(0, len(plain), 8)]


@pytest.mark.parametrize(("classes", "bits"), [(2, 1), (256, 8), (257, 9), (32_000, 15), (32_768, 15), (128_256, 17)])
def test_indices_take_the_bits_that_the_vocabulary_needs(classes: int, bits: int) -> None:
    assert bits_for(classes) == bits


def test_logarithms_are_rounded_to_the_nearest_step() -> None:
    x = torch.linspace(-20, 2, 501)
    back = decoded(coded(x, -16.0, 0.0, 8), -16.0, 0.0, 8)
    torch.testing.assert_close(back, x.clamp(-16, 0), rtol=0, atol=8.001 / 255)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("spread", [0.1, 3.0, 20.0])
def test_the_likeliest_keep_their_probabilities_and_the_rest_its_mass(bits: int, spread: float) -> None:
    table = logits(spread=spread)
    coding = Coding(top_k=20, bits=bits)
    top = coding.decode(coding.encode(TeacherOutput(table)), V, sparse=True).output
    assert isinstance(top, TopK)
    p = table.double().softmax(-1)
    values, indices = p.topk(20)
    assert torch.equal(top.indices, indices)
    rest, kept = 1 - values.sum(-1), top.log_probs.double().exp()
    assert (kept.sum(-1) <= 1 + 1e-6).all()
    likely = values > 1e-6  # below, 8 bits end
    step = 2 * bits / (2**bits - 1)
    torch.testing.assert_close(kept[likely], values[likely], rtol=1.01 * step + 1e-4, atol=0)
    torch.testing.assert_close(1 - kept.sum(-1), rest, rtol=step / 2 + 1e-3, atol=5e-7)  # fp32's own


def test_dense_logits_of_a_top_k_store_are_those_of_today() -> None:
    table = logits()
    exact = Coding("float32", top_k=9)
    stored = exact.encode(TeacherOutput(table))
    assert {name: t.dtype for name, t in stored.items()} == {"logits/top": torch.float32, "logits/index": torch.int32}
    top = TopK.of(table, 9)
    read = exact.decode(stored, V, sparse=True).output
    assert torch.equal(read.log_probs, top.log_probs)
    dense = exact.decode(stored, V).output
    torch.testing.assert_close(dense.gather(-1, top.indices), top.log_probs)
    torch.testing.assert_close(dense.exp().sum(-1), torch.ones(B, L))


@pytest.mark.parametrize(
    ("coding", "most"),
    [
        (Coding(draws=25), 47),  # ⌈25 · 15 / 8⌉
        (Coding(draws=12, power=0.8, bits=16), 23 + 24),
        (Coding(top_k=16, bits=8), 30 + 16 + 2),
        (Coding(top_k=11, bits=16), 21 + 22 + 2),
        (Coding(top_k=16, dtype="float32"), 16 * 8),
    ],
    ids=lambda x: x.words if isinstance(x, Coding) else "",
)
def test_bytes_a_token_of_a_vocabulary_of_32_000(tmp_path: Path, coding: Coding, most: int) -> None:
    write(tmp_path, logits(shape=(2, 3, 32_000)), coding)
    assert StoredTeacher(tmp_path).description.about["sample_bytes"] == 3 * most
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert 6 * most <= size < 6 * most + 600  # and what describes them


def test_draws_are_the_teachers_distribution_in_expectation_and_the_likeliest_are_not() -> None:
    p = logits(seed=3).double().softmax(-1)[0, 0]
    runs, draws = 4000, 12
    start = starts(torch.arange(runs), 1, 0).flatten()
    indices, weights = draw(p.log().float().expand(runs, V), draws, 1.0, start)
    assert weights.abs().max() < 1e-5  # of p itself they are 1
    counts = torch.zeros(runs, V, dtype=torch.float64).scatter_add_(1, indices, torch.ones(runs, draws).double())
    mean, error = counts.mean(0) / draws, counts.std(0) / draws / runs**0.5
    apart = (mean - p).abs() / error.clamp(min=1e-9)
    often = p * draws * runs > 50  # where a count is nearly normal
    assert often.sum() > 60
    assert apart[often].max() < 4.5  # of 300 classes: a chance of 0.002 that one lies farther
    chi = ((counts.sum(0) - runs * draws * p) ** 2 / (runs * draws * p)).sum()
    assert chi < 1.3 * V
    independent = p * (1 - p) / draws
    assert ((counts - draws * p).abs() < 1 + 1e-6).all()  # each count is K p rounded up or down
    assert (counts / draws).var(0).sum() < 0.8 * independent.sum()  # less noise than independent draws have
    top = TopK.of(p.log().float()[None], draws)
    kept = torch.zeros(V).scatter(0, top.indices[0], top.log_probs[0].exp() / top.log_probs[0].exp().sum())
    assert (kept - p).abs().sum() > 50 * error.sum() / V  # whatever the seeds
    assert (kept - p).abs().max() > 20 * error.max()


@pytest.mark.parametrize("power", [0.6, 1.5])
def test_weights_make_draws_from_another_distribution_right(power: float) -> None:
    p = logits(seed=4, spread=1.5).double().softmax(-1)[0, 0]
    runs = 4000
    start = starts(torch.arange(runs), 1, 0).flatten()
    indices, weights = draw(p.log().float().expand(runs, V), 16, power, start)
    estimates = torch.zeros(runs, V, dtype=torch.float64).scatter_add_(1, indices, weights.double().exp() / 16)
    error = estimates.std(0) / runs**0.5
    often = p * 16 * runs > 50
    assert often.sum() > 60
    assert ((estimates.mean(0) - p).abs()[often] / error[often]).max() < 4.5
    q = p**power / (p**power).sum()
    torch.testing.assert_close(weights.double().exp(), (p / q)[indices], rtol=1e-4, atol=0)


def test_the_gradient_by_draws_is_that_by_all_logits_in_expectation() -> None:
    table = logits(seed=5, shape=(1, 1, 40))
    student = logits(seed=6, shape=(1, 1, 40)).requires_grad_()
    coding, runs = Coding(draws=8), 3000
    found = []
    for index in range(runs // 500):
        many = coding.encode(TeacherOutput(table.expand(500, 1, 40)), torch.arange(500) + 500 * index)
        sampled = coding.decode(many, 40).output
        loss = losses.kd(student.expand(500, 1, 40), sampled, temperature=1.0)
        found.append(torch.autograd.grad(loss.mean(), student)[0])
    (exact,) = torch.autograd.grad(losses.kd(student, table, temperature=1.0).sum(), student)
    assert (torch.stack(found).mean(0) - exact).abs().max() < 0.01
    top = losses.kd(student, TopK.of(table, 8), temperature=1.0, rest="spread").sum()
    (biased,) = torch.autograd.grad(top, student)
    assert (biased - exact).abs().max() > 2 * (torch.stack(found).mean(0) - exact).abs().max()


def test_draws_are_a_function_of_sample_position_and_view_alone(tmp_path: Path) -> None:
    table = logits(shape=(5, L, V))
    coding = Coding(draws=7)
    whole = coding.encode(TeacherOutput(table), torch.arange(5))["logits/indices"]
    some = coding.encode(TeacherOutput(table[[3, 1]]), torch.tensor([3, 1]))["logits/indices"]
    assert torch.equal(some, whole[[3, 1]])
    assert not torch.equal(coding.encode(TeacherOutput(table), torch.arange(5), view=1)["logits/indices"], whole)
    same = logits(shape=(1, 1, V)).expand(2, 2, V)
    drawn = unpack(coding.encode(TeacherOutput(same))["logits/indices"], 7, bits_for(V))
    assert len({tuple(drawn[a, b].tolist()) for a in range(2) for b in range(2)}) == 4
    for size in (2, 3):  # asked in other batches
        write(tmp_path / str(size), table, coding, size)
    one, other = (StoredTeacher(tmp_path / str(size))(batch(0, 4)).output for size in (2, 3))
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_numbers_of_a_start_are_spread_evenly() -> None:
    found = starts(torch.arange(2000), 5, 0).numpy().ravel()
    assert found.min() >= 0
    assert found.max() < 1
    assert abs(np.histogram(found, 20, (0, 1))[0] - 500).max() < 110  # five standard deviations
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05


def test_a_stored_teacher_gives_what_losses_take(tmp_path: Path) -> None:
    table = logits()
    write(tmp_path / "top", table, Coding(top_k=8))
    known = StoredTeacher(tmp_path / "top")
    assert known(batch(1, 3)).output.shape == (2, L, V)
    sparse = known.sparsely()(batch(1, 3)).output
    assert isinstance(sparse, TopK)
    assert sparse.log_probs.shape == (2, L, 8)
    assert sparse.log_probs.dtype == torch.float32
    assert known.sparsely().fingerprint == known.fingerprint
    write(tmp_path / "drawn", table, Coding(draws=9))
    drawn = StoredTeacher(tmp_path / "drawn")(batch(1, 3)).output
    assert isinstance(drawn, Sampled)
    assert drawn.indices.shape == (2, L, 9)
    torch.testing.assert_close(drawn.weights.sum(-1), torch.ones(2, L))


@pytest.mark.parametrize(
    "coding", [Coding(top_k=3), Coding(draws=3), Coding(draws=3, power=0.5)], ids=lambda c: c.words
)
def test_maps_are_stored_by_pixel(coding: Coding) -> None:
    table = logits(shape=(2, 5, 4, 3))
    output = coding.decode(coding.encode(TeacherOutput(table)), 5, sparse=True).output
    assert output[0].shape == output[1].shape == (2, 3, 4, 3)
    student = logits(1, shape=(2, 5, 4, 3))
    assert losses.kd(student, output, temperature=1.0).shape == (2,)


def test_a_store_of_the_format_before_is_read(tmp_path: Path) -> None:
    table = logits()
    top = TopK.of(table, 3)
    about = {"classes": V, "dtype": "float16", "top_k": 3, "sample_bytes": 8 * 3 * L}
    shapes = {"logits/index": ("int32", [L, 3]), "logits/top": ("float32", [L, 3])}
    before = Description({}, B, 1, B, shapes, about, {})
    write(tmp_path, table, Coding("float32", top_k=3), batch_size=B, size=B)
    path = tmp_path / "teacher_outputs.json"
    from limbeck.teachers import description, shards

    content = json.loads(before.as_json()) | {"format": 2}
    del content["digest"]
    content["digest"] = description._digest(content)
    path.write_text(json.dumps(content))
    place = shards.Shards(tmp_path)
    place.write(before, 0, 0, {"logits/index": top.indices.int(), "logits/top": top.log_probs})
    known = StoredTeacher(tmp_path, sparse=True)
    assert torch.equal(known(batch(2, 0)).output.log_probs, top.log_probs[[2, 0]])
    with pytest.raises(RequestError, match="another form: bits 32 instead of 16"):
        write(tmp_path, table, Coding(top_k=3), batch_size=B, size=B)
    write(tmp_path, table, Coding("float16", top_k=3, bits=32), batch_size=B, size=B)  # the same, which is there


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 2, "draws": 3}, "either top_k or draws"),
        ({"top_k": 2, "bits": 7}, "8 to 16, or 32"),
        ({"draws": 0}, "draws must be 1 or more"),
        ({"draws": 2, "bits": 32}, "8 to 16 bits"),
        ({"draws": 2, "power": 0.0}, "power"),
        ({"draws": 2, "power": 0.5, "bits": 8}, "12 to 16 bits"),
    ],
)
def test_what_can_be_no_coding_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Coding(**options)


@pytest.mark.parametrize("changes", [{"codec": "dense", "bits": 3}, {"draws": -1}, {"power": "much"}])
def test_a_description_of_no_coding_is_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    about = {"classes": 2, **Coding(top_k=1).about, "sample_bytes": 4} | changes
    content = Description({}, 4, 1, 4, {}, about, {}).as_json()
    (tmp_path / "teacher_outputs.json").write_text(content)
    with pytest.raises(RequestError, match=r"teacher_outputs.json is damaged"):
        StoredTeacher(tmp_path)

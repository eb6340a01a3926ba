"""Stored teacher outputs: what is read is what was said, whole or refused with the reason."""

from __future__ import annotations

import json
import struct
import zlib
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, ModuleTeacher, RequestError, RunError, TeacherOutput, Term, fit, losses
from limbeck.data import InMemory, Views, make_loader, make_views
from limbeck.teachers import CachedTeacher, StoredTeacher, shards, stored
from limbeck.teachers.coding import DTYPES, Coding
from limbeck.teachers.description import Description
from limbeck.teachers.stored import store, verify

SAMPLES, CLASSES = 50, 7
MADE_OF = {"teacher": "t", "data": "d", "views": "v"}


@pytest.fixture
def split() -> InMemory:
    pixels = torch.randint(0, 256, (SAMPLES, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return InMemory(pixels, torch.arange(SAMPLES) % CLASSES)


@pytest.fixture
def teacher() -> ModuleTeacher:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES))
    return ModuleTeacher(network, ["0"])


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SHARD_BYTES", 8 * 2 * (144 + CLASSES) * 2)  # sixteen samples in fp16


class Asked:
    """A teacher that counts what it is asked, and fails when told to."""

    def __init__(self, teacher: ModuleTeacher, fails_at: int | None = None) -> None:
        self.teacher, self.fails_at, self.count = teacher, fails_at, 0
        self.fingerprint = teacher.fingerprint

    def __call__(self, batch: Batch) -> Any:
        self.count += batch.size
        if self.fails_at is not None and self.count > self.fails_at:
            raise KeyboardInterrupt
        return self.teacher(batch)


def write(place: Any, teacher: Any, split: InMemory, views: Views | None = None, **changes: Any) -> None:
    loader = make_loader(split, 8, views=views)

    def batches(view: int, start: int, stop: int) -> Any:
        loader.set_epoch(view)
        return islice(loader.starting_at(start // 8), -(-(stop - start) // 8))

    count = (views.count or 1) if views else 1
    options = {"samples": SAMPLES, "views": count, "batch_size": 8, "made_of": MADE_OF, "coding": Coding()}
    store(teacher, batches, place, **options | changes)


def batches(split: InMemory, views: Views | None = None, epoch: int = 0) -> list[Batch]:
    loader = make_loader(split, 7, shuffle=True, seed=5, views=views)
    loader.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_what_is_read_is_what_the_teacher_says(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher, dtype: str, tolerance: float
) -> None:
    write(tmp_path, teacher, split, coding=Coding(dtype))
    known = StoredTeacher(tmp_path, MADE_OF)
    assert len(known.description.shards) > 1
    for batch in batches(split):
        said, now = known(batch), teacher(batch)
        for kept, new in ((said.output, now.output), (said.features["0"], now.features["0"])):
            assert kept.dtype == torch.float32
            torch.testing.assert_close(kept, new, rtol=tolerance, atol=max(tolerance, 1e-6))


def test_a_stored_teacher_output_belongs_to_the_pixels_that_the_student_sees(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher
) -> None:
    views = make_views(["crop", "flip", {"cutout": 3}], count=3)
    write(tmp_path, teacher, split, views)
    known = StoredTeacher(tmp_path)
    for epoch in range(5):
        for batch in batches(split, views, epoch):
            assert batch.view == epoch % 3
            assert torch.cosine_similarity(known(batch).output, teacher(batch).output).min() >= 0.9999
    other = batches(split, views, 1)[0]
    elsewhere = known(other._replace(view=0)).output
    assert torch.cosine_similarity(elsewhere, teacher(other).output).min() < 0.9999


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_the_student_of_a_kept_teacher_is_that_of_a_live_one_bit_for_bit(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher, kind: str
) -> None:
    fifty = InMemory(split.inputs[:48], split.targets[:48])  # full batches of eight
    if kind == "memory":
        kept: Any = CachedTeacher(teacher, [make_loader(fifty, 8)], 48)
    else:
        write(tmp_path, teacher, fifty, samples=48, coding=Coding("float32"))
        kept = StoredTeacher(tmp_path)

    def student(guide: Any) -> dict[str, Tensor]:
        torch.manual_seed(3)
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, CLASSES))
        terms = [Term(losses.kd, weight=0.5), Term(losses.mse, student="1", teacher="0", adapter=flat)]
        optimizer = partial(torch.optim.Adam, lr=0.01)
        loader = make_loader(fifty, 8, shuffle=True)
        run = fit(Distiller(network, terms), loader, teacher=guide, epochs=3, optimizer=optimizer, progress=False)
        return run.student.state_dict()

    online, from_store = student(teacher), student(kept)
    if rows_keep_their_bits(teacher, fifty.inputs[:8]):
        assert all(torch.equal(online[name], from_store[name]) for name in online)
    else:  # MKL under AVX2: a row's last bits depend on its place in the batch, and the shuffled batches are others
        assert all(torch.allclose(online[name], from_store[name], atol=1e-4) for name in online)


def rows_keep_their_bits(teacher: ModuleTeacher, inputs: Tensor) -> bool:
    """Whether a sample's outputs are the same bits at any place in a batch, on this processor."""
    order = torch.arange(len(inputs)).flip(0)
    read = inputs.float() / 255
    whole, turned = (teacher(Batch(x, None, order)).output for x in (read, read[order]))
    return torch.equal(whole[order], turned)


def flat(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 144), nn.Unflatten(1, teacher[1:]))


@pytest.mark.parametrize(
    ("coding", "step"),
    [(Coding("float32", top_k=2), 0.0), (Coding(top_k=2), 32 / 65535), (Coding(top_k=2, bits=8), 16 / 255)],
)
def test_the_likeliest_classes_are_kept_and_the_rest_is_spread(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher, coding: Coding, step: float
) -> None:
    write(tmp_path, teacher, split, coding=coding)
    batch = batches(split)[0]
    kept, now = StoredTeacher(tmp_path)(batch).output.softmax(-1), teacher(batch).output.softmax(-1)
    top = now.topk(2).indices
    # A logarithm is rounded to the nearest step, by which the named classes are then scaled to leave the rest its mass.
    torch.testing.assert_close(
        kept.gather(1, top), now.gather(1, top), rtol=1.01 * step + 1.3e-6, atol=1e-5 * (step == 0)
    )
    rest = 1 - now.gather(1, top).sum(1)
    torch.testing.assert_close(
        kept.min(1).values, rest / (CLASSES - 2), rtol=1.3e-6 if step == 0 else 2.6e-4 + step, atol=0
    )


def test_an_interrupted_writing_goes_on_to_the_same_store(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher
) -> None:
    views = make_views(["flip"], count=2)
    write(tmp_path / "whole", teacher, split, views)
    killed = Asked(teacher, fails_at=70)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut", killed, split, views)
    with pytest.raises(RequestError, match="not complete"):
        StoredTeacher(tmp_path / "cut")
    again = Asked(teacher)
    write(tmp_path / "cut", again, split, views)
    assert again.count < 2 * SAMPLES
    whole, cut = ({p.relative_to(d): p.read_bytes() for p in d.rglob("*") if p.is_file()}
                  for d in (tmp_path / "whole", tmp_path / "cut"))  # fmt: skip
    assert whole == cut


def test_soft_labels_of_the_likeliest_classes_keep_their_tail(tmp_path: Path) -> None:
    # Three likely classes hold nearly all mass: what is left for the other 80 is smaller than a rounding of theirs.
    logits = torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    logits[:, :3] += 9
    for dtype in DTYPES:
        coding = Coding(dtype, top_k=20)
        kept = coding.decode(coding.encode(TeacherOutput(logits)), 100).output
        p, q = (logits / 4).log_softmax(-1), (kept / 4).log_softmax(-1)
        assert (p.exp() * (p - q)).sum(-1).max() < 0.03


def test_more_views_are_added_to_those_that_are_there(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    write(tmp_path, teacher, split, make_views(["flip"], count=1))
    more, asked = make_views(["flip"], count=3), Asked(teacher)
    write(tmp_path, asked, split, more)
    assert asked.count < 2 * SAMPLES + 10
    for batch in batches(split, more, 2):
        torch.testing.assert_close(StoredTeacher(tmp_path)(batch).output, teacher(batch).output, rtol=2e-3, atol=2e-3)
    fewer = Asked(teacher)
    write(tmp_path, fewer, split, make_views(["flip"], count=2))
    assert fewer.count < 10


def test_another_batch_size_finds_and_finishes_the_same_store(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher
) -> None:
    write(tmp_path, teacher, split)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    sorted(whole)[1].unlink()
    loader = make_loader(split, 5)

    def by_five(view: int, start: int, stop: int) -> Any:
        return islice(loader.starting_at(start // 5), -(-(stop - start) // 5))

    options = {"samples": SAMPLES, "views": 1, "made_of": MADE_OF, "coding": Coding()}
    store(teacher, by_five, tmp_path, batch_size=5, **options)
    for batch in batches(split):
        torch.testing.assert_close(StoredTeacher(tmp_path)(batch).output, teacher(batch).output, rtol=2e-3, atol=2e-3)


def test_a_failed_read_is_not_called_damage(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, teacher, split)

    def full(*given: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "safe_open", full)
    with pytest.raises(RequestError, match=r"cannot read .*: No space left on device"):
        StoredTeacher(tmp_path)(batches(split)[0])


def test_several_processes_write_their_share(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    write(tmp_path / "one", teacher, split)
    counts = []
    for rank in (0, 1):  # the second one finds what the first has written
        part = Asked(teacher)
        write(tmp_path / "two", part, split, rank=rank, world_size=2)
        counts.append(part.count)
    assert max(counts) < SAMPLES
    for path in (tmp_path / "one").rglob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.parametrize("name", ["teacher", "data", "views"])
def test_a_stale_store_is_refused_with_the_reason(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher, name: str
) -> None:
    write(tmp_path, teacher, split)
    other = MADE_OF | {name: "new"}
    with pytest.raises(RequestError, match=f"stale, made with another {name} {MADE_OF[name]} instead of new"):
        StoredTeacher(tmp_path, other)
    with pytest.raises(RequestError, match="stale"):
        write(tmp_path, teacher, split, made_of=other)
    with pytest.raises(RequestError, match="another form: dtype float16 instead of float32"):
        write(tmp_path, teacher, split, coding=Coding("float32"))


def ask_again(split: InMemory, teacher: ModuleTeacher) -> Any:
    def ask(view: int, index: Tensor) -> Any:
        return teacher(Batch(split.inputs[index].float() / 255, split.targets[index], index))

    return ask


def damaged_copies(content: bytes, places: Any) -> Any:
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        yield bytes(damaged)


def test_a_flipped_byte_is_found_and_named(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    write(tmp_path, teacher, split)
    assert verify(tmp_path, ask_again(split, teacher))["error"] < 0.001
    victim = sorted(tmp_path.rglob("*.safetensors"))[1]
    content = victim.read_bytes()
    for damaged in damaged_copies(content, (len(content) - 5, 40, 3)):  # values, description, length of that
        victim.write_bytes(damaged)
        with pytest.raises(RequestError, match=f"{victim.parent.name}/{victim.name} is damaged"):
            verify(tmp_path, ask_again(split, teacher))
    victim.unlink()
    with pytest.raises(RequestError, match=r"1 of .* shards are missing"):
        verify(tmp_path, ask_again(split, teacher))


def test_a_flipped_byte_is_found_at_the_first_read(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    write(tmp_path, teacher, split)
    victim = sorted(tmp_path.rglob("*.safetensors"))[1]
    content = victim.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert header["__metadata__"].keys() == {"checksum"}
    for damaged in damaged_copies(content, range(0, len(content), 97)):
        victim.write_bytes(damaged)
        known = StoredTeacher(tmp_path)
        known(first_of(split, 0))  # of a shard that is whole
        with pytest.raises(
            RequestError, match=f"{victim.name} is damaged .*delete it, and store the teacher outputs again"
        ):
            known(first_of(split, known.description.rows))
    victim.write_bytes(content[:-2])
    with pytest.raises(RequestError, match="is damaged"):
        StoredTeacher(tmp_path)(first_of(split, known.description.rows))
    victim.unlink()
    write(tmp_path, teacher, split)  # as the error says
    assert victim.read_bytes() == content


def first_of(split: InMemory, start: int) -> Batch:
    index = torch.arange(start, start + 4)
    return Batch(split.inputs[index].float() / 255, split.targets[index], index)


def test_a_shard_of_another_place_or_store_is_damage(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    write(tmp_path / "one", teacher, split)
    write(tmp_path / "other", teacher, split, made_of=MADE_OF | {"teacher": "u"})
    first, second = sorted((tmp_path / "one").rglob("*.safetensors"))[:2]
    known = StoredTeacher(tmp_path / "one")
    for foreign in (second, sorted((tmp_path / "other").rglob("*.safetensors"))[0]):
        first.write_bytes(foreign.read_bytes())
        with pytest.raises(RequestError, match=r"shard-000000\.safetensors is damaged"):
            known(first_of(split, 0))
    # Without a description nobody knows whose the shards are, so that they are written anew.
    (tmp_path / "other" / "teacher_outputs.json").unlink()
    asked = Asked(teacher)
    write(tmp_path / "other", asked, split)
    assert asked.count >= SAMPLES
    StoredTeacher(tmp_path / "other")(first_of(split, 0))


def test_a_changed_description_is_found(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    write(tmp_path, teacher, split)
    path = tmp_path / "teacher_outputs.json"
    whole = path.read_text()
    content = json.loads(whole)
    for changed in (content | {"samples": SAMPLES - 1}, content | {"views": 2}, content | {"digest": "0" * 32}, [], {}):
        path.write_text(json.dumps(changed))
        with pytest.raises(RequestError, match=r"teacher_outputs.json is damaged.*delete it|of format None"):
            StoredTeacher(tmp_path)
    for text in (whole.replace("t", "s", 1), whole[:-5], "[" * 100_000, " " * (2**24 + 1)):
        path.write_text(text)
        with pytest.raises(RequestError, match=r"teacher_outputs.json is damaged.*delete it|of format"):
            StoredTeacher(tmp_path)
    path.write_text(json.dumps(content | {"format": 1}))
    with pytest.raises(RequestError, match="format 1, which this limbeck does not read; delete it, or choose another"):
        StoredTeacher(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"rows": 0}, {"samples": 10**30}, {"views": 10**9}, {"rows": -1}, {"rows": True}, {"about": {}}]
)
def test_a_description_that_can_be_none_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    about = {"classes": 2, "dtype": "float16", "top_k": None, "sample_bytes": 4}
    given = {"made_of": {}, "samples": 4, "views": 1, "rows": 4, "tensors": {}, "about": about, "words": {}}
    (tmp_path / "teacher_outputs.json").write_text(Description(**given | changes).as_json())  # with a digest that fits
    with pytest.raises(RequestError, match=r"teacher_outputs.json is damaged"):
        StoredTeacher(tmp_path)


@pytest.mark.parametrize(
    ("coding", "factor"),
    [(Coding(), 1.2), (Coding(top_k=1), 1.2), (Coding("bfloat16"), 1.2), (Coding(draws=9), 4.0)],  # few draws move
    ids=str,
)
def test_a_teacher_that_says_something_else_is_found(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher, coding: Coding, factor: float
) -> None:
    write(tmp_path, teacher, split, coding=coding)
    verify(tmp_path, ask_again(split, teacher))
    with torch.no_grad():
        teacher.module[3].weight.mul_(factor)
    with pytest.raises(RequestError, match="says something else"):
        verify(tmp_path, ask_again(split, teacher))


def test_a_store_is_checked_and_read_without_loading_it(tmp_path: Path) -> None:
    rows, width, count = 2**15, 1024, 16  # 16 shards of 64 MiB that take no space on disk
    about = {"classes": width, "dtype": "float16", "top_k": None, "sample_bytes": 2 * width}
    described = Description(MADE_OF, rows * count, 1, rows, {"logits": ("float16", [width])}, about, {})
    shards.Shards(tmp_path).describe(described)
    tensors = {"logits": {"dtype": "F16", "shape": [rows, width], "data_offsets": [0, 2 * rows * width]}}
    data = zlib.crc32(bytes(2 * rows * width))
    (tmp_path / "view-0000").mkdir()
    for number in range(count):
        place = f"{described.identity} 0 {number}".encode()
        checksum = f"{zlib.crc32(place, zlib.crc32(json.dumps(tensors, sort_keys=True).encode(), data)):08x}"
        header = json.dumps({"__metadata__": {"checksum": checksum}} | tensors).encode()
        with (tmp_path / "view-0000" / f"shard-{number:06d}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + 2 * rows * width)
    before = held_memory()
    known = StoredTeacher(tmp_path)
    for seed in range(5):
        index = torch.randint(0, rows * count, (64,), generator=torch.Generator().manual_seed(seed))
        assert known(Batch(index, index, index)).output.shape == (64, width)
    assert len(known._shards._open) == count
    assert held_memory() - before < 100 * 2**20  # of 1 GiB


def held_memory() -> int:
    """Bytes that are in no file, which the system could not take back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_teacher_outputs_lie_where_fsspec_can_put_them(split: InMemory, teacher: ModuleTeacher) -> None:
    write("memory://outputs/test", teacher, split)
    known = StoredTeacher("memory://outputs/test", MADE_OF)
    for batch in batches(split):
        torch.testing.assert_close(known(batch).output, teacher(batch).output, rtol=1e-3, atol=1e-3)


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, split: InMemory, teacher: ModuleTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.Shards, "free_bytes", lambda self: 1000)
    with pytest.raises(RequestError, match=r"1\.0 kB are free; store fewer views"):
        write(tmp_path, teacher, split)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_a_failed_run(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    (tmp_path / "view-0000").write_text("in the way")
    with pytest.raises(RunError, match="cannot write"):
        write(tmp_path, teacher, split)


def test_values_that_do_not_fit_the_dtype_are_refused(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    with torch.no_grad():
        teacher.module[3].weight.mul_(1e6)
    with pytest.raises(RequestError, match="too large for float16; store them as bfloat16"):
        write(tmp_path, teacher, split)


def test_batches_that_nobody_asked_about_are_refused(tmp_path: Path, split: InMemory, teacher: ModuleTeacher) -> None:
    write(tmp_path, teacher, split)
    known, batch = StoredTeacher(tmp_path), batches(split)[0]
    with pytest.raises(RequestError, match="known in 1 view"):
        known(batch._replace(view=1))
    with pytest.raises(RequestError, match="this loader gives none"):
        known(batch._replace(index=torch.full_like(batch.index, -1)))
    with pytest.raises(RequestError, match="no teacher outputs are stored"):
        StoredTeacher(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="unknown dtype of stored teacher outputs 'float61'; did you mean float16"):
        Coding("float61")

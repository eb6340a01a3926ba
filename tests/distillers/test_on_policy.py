"""A student that learns from texts of its own: what is drawn, what counts, and that a killed training repeats it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dying import Dies, Killed
from limbeck import Distiller, Hardware, OnPolicyDistiller, RequestError, Saving, TeacherOutput, Term, fit, losses
from limbeck.data import make_loader
from limbeck.data.text.texts import IDS, Texts, following, mask_of
from limbeck.distillers.by_epoch import linear
from limbeck.distillers.continuation import Rows, choosing, continued, targets_of
from limbeck.distillers.on_policy import Generated
from limbeck.engine.devices.sharding import check_shared, sharding
from limbeck.models.foreign.hugging_face_generate import generated_by, generates
from limbeck.models.networks.transformer import transformer
from limbeck.seeds import derive
from limbeck.tasks import Classification, LanguageModelling
from limbeck.teachers import CachedTeacher, ModuleTeacher
from limbeck.types import MASK

N, L, V, END = 12, 10, 7, 6
JSD = Term(losses.jsd, temperature=1.0, beta=0.5)
SPREAD: dict[str, Any] = {"initializer_range": 0.8, "eos_token_id": None, "bos_token_id": None}
DRAWN: dict[str, Any] = {"seed": 3, "epoch": 1, "temperature": 1.0, "classes": None}


def seeded(make: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return make()


def model(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    made: nn.Module = seeded(
        partial(transformer, input_shape=(L,), classes=V, dim=8, depth=1, heads=2, dropout=dropout), seed
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(8)  # far from an even distribution
    return made


def texts(masked: bool = False) -> Texts:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(END, (N, L), generator=generator, dtype=torch.int32)
    if not masked:
        return Texts({IDS: ids}, following(ids, torch.ones(N, L, dtype=torch.bool)))
    sizes = torch.randint(5, L + 1, (N,), generator=generator)
    answers = mask_of(sizes, L) & (torch.arange(L) >= torch.randint(2, 5, (N, 1), generator=generator))
    return Texts({IDS: ids, MASK: mask_of(sizes, L)}, following(ids, answers))


def loader(data: Texts | None = None) -> Any:
    return make_loader(data or texts(), 4, shuffle=True, seed=1)


def scheme(student: nn.Module, terms: Any = (JSD,), **options: Any) -> OnPolicyDistiller:
    return OnPolicyDistiller(student, list(terms), **{"task": LanguageModelling(), "prompt": 4, "end": END, **options})


def train(distiller: Distiller, **options: Any) -> dict[str, Tensor]:
    given: dict[str, Any] = {"epochs": 2, "optimizer": partial(torch.optim.SGD, lr=0.1), "teacher": model(9)}
    given |= {"hardware": Hardware("cpu"), "progress": False, "measure_balance": False, "seed": 4}
    return fit(distiller, **{"train": loader(), **given, **options}).student.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_tokens_are_drawn_where_the_distribution_function_passes_the_prompts_numbers() -> None:
    logits = torch.randn(400, V, generator=torch.Generator().manual_seed(0)).double()
    logits[:, 2] = -torch.inf
    index = torch.arange(400)
    choose = choosing(index, 3, **DRAWN)
    levels = np.cumsum(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True), 1)
    generators = [torch.Generator().manual_seed(derive(3, "continuation", 1, prompt)) for prompt in range(400)]
    numbers = [float(torch.rand(3, generator=one)[2]) for one in generators]
    found = choose(logits, 2, index).numpy()
    expected = [int(np.searchsorted(row, u, side="right")) for row, u in zip(levels, numbers, strict=True)]
    assert found.tolist() == expected
    assert 2 not in found
    one = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(400, 3)
    shares = np.bincount(choose(one, 0, index).numpy(), minlength=3) / 400
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=4 * np.sqrt(0.25 / 400))
    alone = choosing(index[70:71], 3, **DRAWN)(logits[70:71], 2, index[:1])
    assert alone.tolist() == found[70:71].tolist() == choose(logits[70:71], 2, index[70:71]).tolist()
    for change in ({"seed": 4}, {"epoch": 2}):
        assert choosing(index, 3, **{**DRAWN, **change})(logits, 2, index).tolist() != found.tolist()
    assert 6 not in choosing(index, 3, **{**DRAWN, "classes": 6})(logits, 2, index)
    cold = choosing(index, 3, **{**DRAWN, "temperature": 1e-6})(logits, 0, index)
    assert cold.tolist() == logits.argmax(1).tolist()


def one_by_one(net: nn.Module, ids: Tensor, lengths: Tensor, index: Tensor, tokens: int) -> list[list[int]]:
    """Each text by itself, without padding: the meaning of what batches do."""
    found = []
    for row, length, one in zip(ids, lengths.tolist(), index, strict=True):
        choose, text = choosing(one[None], tokens, **DRAWN), row[:length].tolist()
        for number in range(tokens):
            if len(text) == L or (number and text[-1] == END):
                break
            output = net(torch.tensor([text]))
            logits = output if isinstance(output, Tensor) else output.logits
            text.append(int(choose(logits[:, -1], number, torch.tensor([0]))))
        found.append(text)
    return found


def gpt2() -> nn.Module:
    config = {"vocab_size": V, "n_positions": L, "n_embd": 8, "n_layer": 1, "n_head": 2}
    return seeded(lambda: GPT2LMHeadModel(GPT2Config(**config, **SPREAD)), 2)


def llama() -> nn.Module:
    config = {"vocab_size": V, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return seeded(lambda: LlamaForCausalLM(LlamaConfig(**config, **heads, **SPREAD)), 2)


@pytest.mark.parametrize("make", [model, gpt2, llama])
@torch.no_grad()
def test_a_batch_is_continued_as_each_of_its_texts_is_by_itself(make: Any) -> None:
    net = make().eval()
    lengths, index = torch.tensor([3, 1, 5, L, 2, 7, 4, 6]), torch.arange(8) + 20
    ids = torch.where(torch.arange(L) < lengths[:, None], torch.randint(END, (8, L)), 0)
    expected = one_by_one(net, ids, lengths, index, 6)
    choose = choosing(index, 6, **DRAWN)
    if generates(net):
        net.generation_config.repetition_penalty = 1.5  # of the model's folder, without a say
        made, sizes = generated_by(net, ids, lengths, choose, tokens=6, end=END, pad=0)
        assert net.generation_config.repetition_penalty == 1.5
    else:
        rows = continued(lambda some: some.last(net(some.ids)), Rows(ids, lengths), choose, tokens=6, end=END)
        made, sizes = rows.ids, rows.lengths
    assert [row[:size].tolist() for row, size in zip(made, sizes.tolist(), strict=True)] == expected
    assert not made[torch.arange(L) >= sizes[:, None]].any()
    written = [len(text) - length for text, length in zip(expected, lengths.tolist(), strict=True)]
    assert written[3] == 0
    assert max(written) > min(written[:3])
    targets = targets_of(Rows(ids, lengths), Rows(made, sizes))
    for row, text, length in zip(targets.tolist(), expected, lengths.tolist(), strict=True):
        assert row == [-100] * (length - 1) + text[length:] + [-100] * (L - len(text) + 1)


def test_without_own_texts_it_is_the_offline_distiller_to_the_bit() -> None:
    options: dict[str, Any] = {"task": LanguageModelling(), "task_weight": 0.5}
    off = train(Distiller(model(dropout=0.1), [JSD], **options))
    assert same(off, train(scheme(model(dropout=0.1), share=0.0, **options)))
    assert not same(off, train(scheme(model(dropout=0.1), share=1.0, **options)))


def test_generated_tokens_count_and_prompts_do_not() -> None:
    student, teacher = model(dropout=0.3), model(9)
    distiller = scheme(student, share=1.0, task_weight=0.7)
    batch = next(iter(loader()))
    made = distiller.asked(batch)
    assert isinstance(made, Generated)
    ids, targets = made.inputs[IDS], made.targets  # type: ignore[index]
    assert torch.equal(ids[:, :4], batch.inputs[IDS][:, :4])  # type: ignore[index]
    count = int((targets != -100).sum())
    assert (targets[:, :3] == -100).all()
    assert 4 <= count < ids[:, 4:].numel(), "some text must end before its row does"
    assert distiller.training, "the student writes in eval mode, and is put back"
    assert torch.equal(ids, distiller.asked(batch).inputs[IDS])  # type: ignore[index]
    student.eval()
    said = teacher(ids).detach()
    step = distiller(made, TeacherOutput(said))
    rows = targets != -100
    p, q = F.softmax(said[rows].double(), -1), F.softmax(student(ids)[rows].double(), -1)
    m = (p + q) / 2
    expected = 0.5 * ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / count
    assert step.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(step.parts) == {"jsd"}, "labels have no say in a text of one's own"
    assert step.score is not None
    assert step.score.tolist() == [0, 0]
    assert distiller.task.size(made) == count
    said[~rows] += 5 * torch.randn(V)
    assert distiller(made, TeacherOutput(said)).loss.item() == step.loss.item()


def test_prompts_of_conversations_end_where_the_answer_begins() -> None:
    batch = next(iter(loader(texts(masked=True))))
    made = scheme(model(), share=1.0, prompt=None, new_tokens=3).asked(batch)
    place = torch.arange(L)
    begins = torch.where(batch.targets != -100, place + 1, L).amin(1)
    for old, new in zip(batch.inputs[IDS], made.inputs[IDS], strict=True):  # type: ignore[index]
        assert len(old) == len(new) == L
    learned = made.targets != -100
    assert torch.equal(torch.where(learned, place + 1, L).amin(1)[begins < L], begins[begins < L])
    assert 1 <= int(learned.sum(1).max()) <= 3
    mask = made.inputs[MASK]  # type: ignore[index]
    assert mask.dtype == batch.inputs[MASK].dtype  # type: ignore[index]
    assert torch.equal(mask.sum(1), torch.minimum(begins + learned.sum(1), torch.tensor(L)))


def test_a_killed_training_resumed_writes_the_same_texts(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 3, "saving": Saving(checkpoint_steps=2)}
    dies = Dies(model(9), float("inf"))
    whole = train(scheme(model(dropout=0.1), share=0.5), teacher=dies, out=tmp_path / "one", **options)
    with pytest.raises(Killed):
        train(
            scheme(model(dropout=0.1), share=0.5),
            teacher=Dies(model(9), dies.asked - 2),
            out=tmp_path / "two",
            **options,
        )
    again = train(scheme(model(dropout=0.1), share=0.5), out=tmp_path / "two", resume=True, **options)
    assert same(whole, again)
    other = train(scheme(model(dropout=0.1), share=0.5, seed=1), out=tmp_path / "three", **options)
    assert not same(whole, other), "the seed has no say"


def test_the_share_of_own_batches_is_lambda_by_epoch() -> None:
    distiller = scheme(model(), share=linear(0.0, 1.0, 3), new_tokens=1)
    batch = next(iter(loader()))
    found = []
    for epoch in range(3):
        distiller.at(epoch)
        drawn = [distiller.asked(batch._replace(index=torch.arange(4) + 4 * k)) for k in range(100)]
        found.append(sum(isinstance(one, Generated) for one in drawn))
    assert found[0] == 0
    assert abs(found[1] - 50) < 20
    assert found[2] == 100


def no_labels() -> Iterator[Any]:
    yield from ({IDS: torch.randint(END, (4, L)), "labels": torch.randint(END, (4, L))} for _ in range(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": Classification()}, "learns language modelling"),
        ({"terms": [Term(losses.mse, student="norm", teacher="norm")]}, "terms on logits alone"),
        ({"terms": []}, "nothing to learn"),
        ({"share": 1.5}, "lies between 0 and 1, and it is 1.5"),
        ({"share": True}, "lies between 0 and 1, and it is True"),
        ({"new_tokens": 0}, "new_tokens is a whole number of 1 or more, not 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        scheme(model(), **options)


def test_what_cannot_be_written_or_asked_is_refused_before_the_first_step() -> None:
    with pytest.raises(RequestError, match="prompt 10 leaves nothing to write of samples of 10 tokens"):
        train(scheme(model(), prompt=L))
    with pytest.raises(RequestError, match="drawn by the sample's index, and the loader gives none"):
        train(scheme(model()), train=list(no_labels()))
    known = CachedTeacher(ModuleTeacher(model(9)), [list(make_loader(texts(), 4))], N)
    with pytest.raises(RequestError, match="no store knows the texts that the student writes itself"):
        train(scheme(model()), teacher=known)
    sharded = SimpleNamespace(world_size=2, strategy=sharding(2))
    with pytest.raises(RequestError, match="take strategy ddp in place of fsdp"):
        check_shared(scheme(model()), sharded)  # type: ignore[arg-type]


def test_a_teacher_of_a_smaller_padded_vocabulary_knows_what_is_written() -> None:
    def wide(classes: int) -> nn.Module:
        return seeded(partial(transformer, input_shape=(L,), classes=classes, dim=8, depth=1, heads=2), 0)

    data = texts()
    distiller = scheme(wide(62), share=1.0, temperature=50.0, end=None)
    teacher = copy.deepcopy(wide(60))
    train(distiller, train=loader(data), teacher=teacher, epochs=1)
    ids = distiller.written(next(iter(loader(data)))).inputs[IDS]  # type: ignore[index]
    assert int(ids.max()) < 60

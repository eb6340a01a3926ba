"""On-policy distillation through the head is that on all logits: same texts, same loss, same gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from limbeck import Hardware, OnPolicyDistiller, OnPolicyTokenDistiller, TeacherOutput, Term, fit, losses
from limbeck.data import make_loader
from limbeck.data.text.texts import IDS, Texts, following
from limbeck.distillers.on_policy import Generated
from limbeck.models.networks.transformer import transformer
from limbeck.tasks import LanguageModelling
from limbeck.types import Batch

N, L, D, V, END = 12, 10, 8, 7, 6
TERMS = [Term(losses.jsd, weight=0.7, temperature=1.0, beta=0.5), Term(losses.kd, weight=0.5, temperature=2.0)]
OPTIONS: dict[str, Any] = {"task": LanguageModelling(), "prompt": 4, "end": END, "task_weight": 0.3}


class Counting(nn.Module):
    """A language model that counts how often its head is run."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.lm_head = nn.Embedding(V, D), nn.Linear(D, D), nn.Linear(D, V)
        self.heads = 0
        self.lm_head.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.heads += 1

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.lm_head(torch.tanh(self.mix(3 * self.embedding(input_ids).cumsum(1))))


def own() -> nn.Module:
    return transformer(input_shape=(L,), classes=V, dim=D, depth=1, heads=2)


def gpt2() -> nn.Module:
    config: dict[str, Any] = {"vocab_size": V, "n_positions": L, "n_embd": D, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**config, bos_token_id=None, eos_token_id=None))


def seeded(make: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return make().eval()


def texts() -> Texts:
    ids = torch.randint(END, (N, L), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    return Texts({IDS: ids}, following(ids, torch.ones(N, L, dtype=torch.bool)))


def batch() -> Batch:
    found: Batch = next(iter(make_loader(texts(), 4)))
    return found


def said(model: nn.Module, some: Batch) -> TeacherOutput:
    with torch.no_grad():
        output: Any = model(some.inputs[IDS])
    return TeacherOutput(output if isinstance(output, Tensor) else output.logits)


@pytest.mark.parametrize("make", [Counting, own, gpt2])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_texts_loss_and_gradients_are_those_of_all_logits(make: Any, share: float) -> None:
    head = {"head": "lm_head"} if make is Counting else {}
    dense = OnPolicyDistiller(seeded(make), TERMS, share=share, **OPTIONS)
    chunked = OnPolicyTokenDistiller(seeded(make), TERMS, share=share, chunk=3, **head, **OPTIONS)
    teacher = seeded(make, 1)
    steps, asked = [], []
    for scheme in (dense, chunked):
        scheme.prepare(batch(), said(teacher, batch()))
        scheme.student.heads = 0
        asked.append(scheme.asked(batch()))
        steps.append(scheme(asked[-1], said(teacher, asked[-1])))
        steps[-1].loss.backward()
    assert chunked.student.heads == 0
    assert [isinstance(one, Generated) for one in asked] == [share == 1.0] * 2
    assert torch.equal(asked[0].inputs[IDS], asked[1].inputs[IDS])
    wanted, got = steps
    torch.testing.assert_close(got.loss, wanted.loss)
    assert got.parts.keys() == wanted.parts.keys() == {"jsd", "kd"} | ({"task"} if share == 0 else set())
    for name, value in wanted.parts.items():
        torch.testing.assert_close(got.parts[name], value)
    for one, other in zip(chunked.student.parameters(), dense.student.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-6)
    if share:
        assert got.score.tolist() == wanted.score.tolist() == [0, 0]


def test_a_training_gives_the_same_student() -> None:
    found = []
    for kind in (OnPolicyDistiller, OnPolicyTokenDistiller):
        scheme = kind(seeded(own), TERMS, share=0.5, seed=3, **OPTIONS)
        run = fit(
            scheme, make_loader(texts(), 4, shuffle=True, seed=1), teacher=seeded(own, 1), epochs=3,
            optimizer=partial(torch.optim.SGD, lr=0.1), hardware=Hardware("cpu"), progress=False, seed=4,
        )  # fmt: skip
        found.append(run.student.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=1e-5)


def test_a_teachers_model_gives_hidden_states_alone() -> None:
    teacher = seeded(own, 1)
    whole = OnPolicyTokenDistiller(seeded(own), TERMS, share=1.0, **OPTIONS)
    through = OnPolicyTokenDistiller(seeded(own), TERMS, share=1.0, teacher=teacher, **OPTIONS)
    assert not through.teacher_logits
    run = partial(
        fit, train=make_loader(texts(), 4), teacher=teacher, epochs=1, optimizer=partial(torch.optim.SGD, lr=0.1),
        hardware=Hardware("cpu"), progress=False,
    )  # fmt: skip
    one, other = (run(scheme).student.state_dict() for scheme in (whole, through))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5)

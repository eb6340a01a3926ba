"""A step through the head is a step on all logits: same loss, same gradients, same student in the end."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Batch, Distiller, RequestError, TeacherOutput, Term, TokenDistiller, fit, losses
from limbeck.losses import TopK
from limbeck.models.networks.transformer import transformer
from limbeck.models.output_head import OutputHead, find_head
from limbeck.taps import Taps
from limbeck.tasks import Classification, LanguageModelling, TokenClassification
from limbeck.teachers import StoredTeacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.stored import store
from limbeck.types import IGNORED

B, L, D, V = 6, 5, 8, 13
TERMS = [
    Term(losses.kd, weight=0.5, temperature=2.0),
    Term(losses.reverse_kl, weight=0.25, temperature=1.0),
    Term(losses.mse, weight=2.0, student="mix", teacher="mix"),
]


class Model(nn.Module):
    """Embedding, a hidden layer, a head, whose products are scaled and capped."""

    def __init__(self, vocabulary: int = V, scale: float = 1.0, cap: float | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, D)
        self.mix = nn.Linear(D, D)
        self.lm_head = nn.Linear(D, vocabulary)
        self.scale, self.cap, self.heads = scale, cap, 0
        self.lm_head.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.heads += 1

    def forward(self, ids: Tensor) -> Tensor:
        z = self.lm_head(torch.tanh(self.mix(self.embedding(ids)))) * self.scale
        return z if self.cap is None else self.cap * torch.tanh(z / self.cap)


class Tied(nn.Module):
    """A head that shares the embedding's weight."""

    output_head = OutputHead("norm", "embedding.weight")

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.norm = nn.LayerNorm(D)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.norm(self.embedding(ids)), self.embedding.weight)


def seeded(make: Any, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return make(**options)


def batch(seed: int = 0, samples: int = B) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (samples, L), generator=generator)
    targets = torch.randint(V, (samples, L), generator=generator)
    targets[torch.rand(samples, L, generator=generator) < 0.4] = IGNORED
    return Batch(ids, targets, torch.arange(samples))


def said(model: nn.Module, inputs: Tensor) -> TeacherOutput:
    with torch.no_grad():
        logits, tensors = Taps(model, ["mix"]).run(inputs)
    return TeacherOutput(logits, {"mix": tensors["mix"]})


def both(terms: list[Term], make: Any = Model, head: Any = "lm_head", **options: Any) -> tuple[Any, Any]:
    """The same student under a Distiller and under a TokenDistiller."""
    given = {"task": TokenClassification(), "task_weight": 0.3}
    dense = Distiller(seeded(make, **options), terms, **given)
    how = {"scale": options.get("scale"), "cap": options.get("cap")}
    return dense, TokenDistiller(seeded(make, **options), terms, head=head, chunk=4, **given, **how)


@pytest.mark.parametrize("options", [{}, {"scale": 0.5, "cap": 2.0}], ids=["plain", "capped"])
def test_loss_parts_score_and_gradients_are_those_of_all_logits(options):
    teacher, data = seeded(Model, 1), batch()
    output = said(teacher, data.inputs)
    dense, chunked = both(TERMS, **options)
    steps = []
    for scheme in (dense, chunked):
        scheme.prepare(data, output)
        scheme.student.heads = 0
        steps.append(scheme(data, output))
        steps[-1].loss.backward()
    assert (dense.student.heads, chunked.student.heads) == (1, 0)
    wanted, got = steps
    torch.testing.assert_close(got.loss, wanted.loss)
    assert got.parts.keys() == wanted.parts.keys()
    for name, value in wanted.parts.items():
        torch.testing.assert_close(got.parts[name], value)
    for one, other in zip(chunked.student.parameters(), dense.student.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-6)
    known = data.targets != IGNORED
    right = (dense.student(data.inputs).argmax(-1) == data.targets)[known].sum()
    assert got.score.tolist() == [right, known.sum()]


def test_each_loss_by_itself_has_its_own_gradient():
    data = batch()
    output = said(seeded(Model, 1), data.inputs)
    found = []
    for scheme in both(TERMS):
        scheme.prepare(data, output)
        _, parts, weights = scheme.losses(data, output)
        parameters = list(scheme.student.parameters())
        each = {name: torch.autograd.grad(part, parameters, allow_unused=True, retain_graph=True)
                for name, part in parts.items()}  # fmt: skip
        found.append((each, dict(zip(parts, weights, strict=True))))
    (dense, weights), (chunked, others) = found
    assert weights == others
    for name, gradients in dense.items():
        for one, other in zip(chunked[name], gradients, strict=True):
            zero = torch.zeros(())
            torch.testing.assert_close(
                zero if one is None else one, zero if other is None else other, atol=1e-6, rtol=0
            )


def test_fit_gives_the_same_student_and_the_same_record():
    loader = [batch(seed) for seed in range(4)]
    terms = [Term(losses.kd, weight=0.5, temperature=1.0)]
    runs = []
    for scheme in both(terms):
        runs.append(
            fit(scheme, loader, teacher=seeded(Model, 1), val=[batch(9)], epochs=2, accumulate_steps=2, progress=False,
                optimizer=partial(torch.optim.SGD, lr=0.5))
        )  # fmt: skip
    dense, chunked = runs
    for name, value in dense.student.state_dict().items():
        torch.testing.assert_close(chunked.student.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert chunked.metrics[-1]["accuracy"] == dense.metrics[-1]["accuracy"]
    for one, other in zip(dense.metrics, chunked.metrics, strict=True):
        assert one.keys() == other.keys()
        for name in ("loss", "kd", "task", "val_loss", "val_accuracy"):
            assert other[name] == pytest.approx(one[name], rel=1e-5)


def test_a_teachers_model_gives_hidden_states_and_never_its_logits():
    teacher = seeded(Model, 1, vocabulary=V + 1)  # padded; of 14 classes one is more than 5 %
    data, terms = batch(), [Term(losses.kd, temperature=1.0)]
    given = {"task": TokenClassification(), "common_classes": V}
    dense = Distiller(seeded(Model), terms, **given)
    chunked = TokenDistiller(seeded(Model), terms, teacher=teacher, head="lm_head", teacher_head="lm_head", **given)
    assert chunked.teacher_taps == ("lm_head:in",)
    assert not chunked.teacher_logits
    output = TeacherOutput(teacher(data.inputs).detach())
    hidden = TeacherOutput(None, {"lm_head:in": torch.tanh(teacher.mix(teacher.embedding(data.inputs))).detach()})
    dense.prepare(data, output)
    chunked.prepare(data, hidden)
    torch.testing.assert_close(chunked(data, hidden).loss, dense(data, output).loss)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    teacher.heads = 0
    fit(chunked, [data] * 3, teacher=teacher, epochs=2, optimizer=optimizer, progress=False)
    assert teacher.heads <= 2  # its first call, which finds out how deep its taps lie
    assert copy.deepcopy(chunked)._guide.model is teacher


def test_a_top_k_teacher_is_compared_as_it_is():
    data, terms = batch(), [Term(losses.kd, temperature=1.0)]
    logits = seeded(Model, 1)(data.inputs).detach()
    top = TopK.of(logits, 4)
    scheme = TokenDistiller(seeded(Model), terms, task=TokenClassification(), head="lm_head")
    output = TeacherOutput(top)
    scheme.prepare(data, output)
    known = data.targets != IGNORED
    student = scheme.student(data.inputs)[known]
    wanted = losses.kd(student, TopK(*(one[known] for one in top)), temperature=1.0).mean()
    torch.testing.assert_close(scheme(data, output).parts["kd"], wanted.detach())


def test_tied_weights_get_both_gradients():
    data = batch()
    dense, chunked = both([], Tied, None)
    for scheme in (dense, chunked):
        scheme.prepare(data, None)
        scheme(data).loss.backward()
    torch.testing.assert_close(chunked.student.embedding.weight.grad, dense.student.embedding.weight.grad)


def test_a_batch_without_a_label_that_counts_is_zero():
    data = batch()
    data = data._replace(targets=torch.full_like(data.targets, IGNORED))
    _, scheme = both([])
    scheme.prepare(batch(), None)
    step = scheme(data)
    step.loss.backward()
    assert step.loss.item() == 0
    assert step.score.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": Classification()}, "tasks with a class for each token"),
        ({"task": TokenClassification(class_weights=[1.0] * V)}, "class_weights"),
        ({"head": None}, "does not show its head; name it, such as head: lm_head"),
        ({"head": "lm_haed"}, "did you mean lm_head"),
        ({"head": "embedding"}, "plain Linear"),
        ({"terms": [Term(losses.kd, average="samples")]}, "one weight"),
        ({"terms": [Term(losses.kd, student="mix")]}, "logits alone"),
        ({"task_weight": 0.0, "terms": TERMS[2:]}, "nothing to do in chunks"),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_what_does_not_go_in_chunks_is_refused_when_it_is_made(change, words):
    given = {"terms": [Term(losses.kd)], "task": TokenClassification(), "head": "lm_head"} | change
    with pytest.raises(RequestError, match=words):
        TokenDistiller(Model(), **given)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (partial(Model, cap=2.0), {"head": "lm_head"}, "differ from its logits by"),
        (Model, {"head": "mix"}, r"give \(2, 5, 8\), and its logits are \(2, 5, 13\)"),
        (partial(Model, scale=0.5), {"head": "lm_head", "scale": 2.0}, "give head, scale and cap"),
    ],
    ids=["cap", "another layer", "scale"],
)
def test_a_head_that_does_not_give_the_students_logits_is_found_before_the_first_step(model, options, words):
    scheme = TokenDistiller(seeded(model), [], task=TokenClassification(), **options)
    with pytest.raises(RequestError, match=words):
        scheme.prepare(batch(), None)


def test_a_loss_without_a_value_for_each_token_is_named():
    scheme = TokenDistiller(seeded(Model), [Term(losses.kd), Term(whole)], task=TokenClassification(), head="lm_head")
    output = TeacherOutput(torch.zeros(B, L, V))
    scheme.prepare(batch(), output)
    with pytest.raises(RequestError, match="whole gives"):
        scheme(batch(), output)


@pytest.mark.parametrize("terms", [[], [Term(losses.kd)]], ids=["labels", "and kd"])
@pytest.mark.parametrize("wrong", [V, -1], ids=["too large", "below 0"])
def test_a_label_outside_the_vocabulary_is_named_in_any_batch(wrong, terms):
    data = batch()
    data.targets[1, 2] = wrong
    output = TeacherOutput(torch.zeros(B, L, V)) if terms else None
    for scheme in both(terms):
        scheme.prepare(batch(), output)
        with pytest.raises(RequestError, match=rf"label {wrong} is out of range: .* {V} classes; .* \(now -100\)"):
            scheme(data, output)


def whole(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean()


def test_models_of_transformers_show_their_head_scale_and_cap():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": V, "hidden_size": D, "intermediate_size": D, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4}  # fmt: skip
    gemma = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**sizes, final_logit_softcapping=3.0))
    assert find_head(gemma) == OutputHead("lm_head:in", "lm_head.weight", None, 1.0, 3.0)
    del sizes["head_dim"]
    granite = transformers.GraniteForCausalLM(transformers.GraniteConfig(**sizes, logits_scaling=4.0))
    assert find_head(granite).scale == 0.25
    data = batch()
    data = data._replace(inputs={"input_ids": data.inputs})
    for model in (gemma, granite):
        chunked = TokenDistiller(model, [], task=TokenClassification())
        dense = Distiller(copy.deepcopy(model), [], task=TokenClassification())
        for scheme in (chunked, dense):
            scheme.prepare(data, None)
        torch.testing.assert_close(chunked(data).loss, dense(data).loss)


def test_limbecks_own_transformer_shows_its_head():
    network = seeded(transformer, input_shape=(L,), classes=V, dim=D, depth=1, heads=2)
    data = batch()
    data = data._replace(inputs={"input_ids": data.inputs})
    dense = Distiller(copy.deepcopy(network), task=LanguageModelling())
    chunked = TokenDistiller(network, task=LanguageModelling(), chunk=3)
    for scheme in (dense, chunked):
        scheme.prepare(data, None)
        scheme(data).loss.backward()
    for one, other in zip(chunked.student.parameters(), dense.student.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-6)


def store_of(place: Any, table: Tensor, coding: Coding) -> StoredTeacher:
    whole = Batch(torch.zeros(len(table), 1), None, torch.arange(len(table)))

    def say(batch: Batch) -> TeacherOutput:
        return TeacherOutput(table[batch.index])

    store(say, lambda view, start, stop: [whole], place, samples=len(table), views=1, batch_size=len(table),
          made_of={}, coding=coding)  # fmt: skip
    return StoredTeacher(place)


@pytest.mark.parametrize("coding", [Coding(top_k=4), Coding(draws=6)], ids=lambda one: one.codec)
def test_a_stored_teacher_is_read_sparsely_in_a_training(tmp_path, coding):
    """The same as by hand: the loss on the dense logits of the student against what is stored, token by token."""
    data, table = batch(), 2 * torch.randn(B, L, V, generator=torch.Generator().manual_seed(3))
    known = store_of(tmp_path, table, coding)
    scheme = TokenDistiller(seeded(Model), [Term(losses.kd, temperature=1.0)], task=TokenClassification(),
                            task_weight=0.0, head="lm_head")  # fmt: skip
    optimizer = partial(torch.optim.SGD, lr=0.5)
    run = fit(scheme, [data] * 2, teacher=known, epochs=2, optimizer=optimizer, progress=False)
    by_hand = seeded(Model)
    stepper, known_tokens = optimizer(by_hand.parameters()), data.targets != IGNORED
    stored = known.sparsely()(data).output
    kept = type(stored)(*(one[known_tokens] for one in stored))
    for _ in range(4):
        loss = losses.kd(by_hand(data.inputs)[known_tokens], kept, temperature=1.0).mean()
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(run.student.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_a_store_of_another_vocabulary_is_refused(tmp_path):
    known = store_of(tmp_path, torch.zeros(B, L, 2 * V).cumsum(-1).add(torch.arange(2 * V)), Coding(top_k=4))
    scheme = TokenDistiller(Model(), [Term(losses.kd, temperature=1.0)], task=TokenClassification(), head="lm_head")
    with pytest.raises(RequestError, match=r"name the class 25, and the student has 13"):
        fit(scheme, [batch()], teacher=known, epochs=1, optimizer=partial(torch.optim.SGD, lr=0.1), progress=False)

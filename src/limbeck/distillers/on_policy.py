"""On-policy distillation: a language model learns from what its teacher says about texts of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distillers.continuation import Rows, choosing, continued, targets_of
from limbeck.distillers.offline import Distiller
from limbeck.distillers.scheme import check_options
from limbeck.distillers.term import Term
from limbeck.errors import RequestError
from limbeck.models.foreign.hugging_face_generate import generated_by, generates
from limbeck.options import is_whole
from limbeck.seeds import derive, uniform
from limbeck.taps import evaluating
from limbeck.tasks import LanguageModelling, Task
from limbeck.tasks.language import IDS
from limbeck.types import MASK, Batch, Inputs, Step, TeacherOutput, tensors_of

FEW = 2
"""Samples that are continued before the first step, to see that it goes."""


class Generated(Batch):
    """A batch of prompts, continued by the student; its targets are the generated tokens alone."""

    __slots__ = ()


# A distiller in all but the texts that are compared, hence a subclass of a subclass.
class OnPolicyDistiller(Distiller):
    """A distiller of which a share λ of the batches are texts that the student writes itself.

        loss = Σ weight · term(student, teacher) over y ~ student(· | x)    with probability λ,
               that of `Distiller` on the data's batch                      else

    Of a batch that is drawn so, each sample's beginning is the prompt x; the student goes on in eval mode, the teacher
    says what it would at each position, and the terms count the generated tokens. No gradient goes through the draw,
    and the labels have no say. Whether a batch is drawn depends on (seed, epoch, its first sample), and what is written
    on (seed, epoch, sample): a resumed training repeats it, and several processes that share a batch write what one
    would. λ = 0 is `Distiller` to the bit.

    Models of transformers write by their `generate`, which keeps keys and values; any other model makes a pass over the
    whole text for each token.

    Args:
        student: A causal language model, ids (B, L) → logits (B, L, V).
        terms: Losses on logits, such as `Term(losses.jsd, beta=0.5, temperature=1.0)`.
        share: λ in [0, 1]: a number, or a function of the epoch (from 0) (`limbeck.distillers.by_epoch`).
        prompt: Tokens of each sample that are given; None: those before its first target, as conversations have them.
        new_tokens: Tokens that are written at most; None: until the sample's row is full.
        temperature: T > 0 of the draws.
        end: The token behind which a text is over; None for none.
        pad: The token that fills a row up.
        seed: What all draws are functions of.
        task_weight: Weight of the labels' loss on the data's own batches.
        task: `LanguageModelling`.
        inputs, common_classes: As for `Distiller`.

    Raises:
        RequestError: Another task, terms on hidden tensors or none, or an option outside its range.

    Transfers: what the teacher says of the student's own texts.
    Use: language models whose errors add up along a text; for an online teacher, at the price of writing.
    Source: Agarwal et al.: On-Policy Distillation of Language Models (GKD), ICLR 2024, arXiv:2306.13649, algorithm 1;
        recommended λ 0.5 with jsd at β 0.5, T 1.
    """

    def __init__(
        self,
        student: nn.Module,
        terms: Sequence[Term],
        *,
        task: Task,
        share: float | Callable[[int], float] = 0.5,
        prompt: int | None = None,
        new_tokens: int | None = None,
        temperature: float = 1.0,
        end: int | None = None,
        pad: int = 0,
        seed: int = 0,
        task_weight: float = 0.0,
        inputs: nn.Module | None = None,
        common_classes: int | None = None,
    ) -> None:
        super().__init__(
            student, terms, task_weight=task_weight, task=task, inputs=inputs, common_classes=common_classes
        )
        self._writes(share, prompt, new_tokens, temperature, end, pad, seed)

    def _writes(
        self,
        share: float | Callable[[int], float],
        prompt: int | None,
        new_tokens: int | None,
        temperature: float,
        end: int | None,
        pad: int,
        seed: int,
    ) -> None:
        """Take and check what is said of the texts."""
        if not isinstance(self.task, LanguageModelling):
            raise RequestError(f"a student that writes texts learns language modelling, and the task is {self.task!r}")
        if not self._bound or not all(one.compares_logits for one in self._bound.values()):
            raise RequestError("on-policy distillation compares logits at generated tokens: give terms on logits alone")
        _check(temperature=temperature, prompt=prompt, new_tokens=new_tokens)
        self.share = share
        self.prompt, self.new_tokens, self.temperature = prompt, new_tokens, temperature
        self.end, self.pad, self.seed = end, pad, seed
        self._share(0)

    @property
    def generates(self) -> bool:
        return True

    def asked(self, batch: Batch, first: int | None = None) -> Batch:
        """The batch itself, or with probability λ a `Generated` one, on the same device."""
        share = self._share(self.epoch)
        drawn_by = int(batch.index[0]) if first is None else first
        number = uniform(derive(self.seed, "on-policy", self.epoch, drawn_by))
        return self.written(batch) if number < share else batch

    @torch.no_grad()
    def written(self, batch: Batch) -> Generated:
        """The samples' prompts with what the student writes behind them, in rows as long as the batch's."""
        prompts = self._prompts(batch)
        room = prompts.ids.shape[1] - int(prompts.lengths.min())
        tokens = max(1, room if self.new_tokens is None else min(self.new_tokens, room))
        classes = next(iter(self._bound.values())).classes
        choose = choosing(
            batch.index, tokens, seed=self.seed, epoch=self.epoch, temperature=self.temperature, classes=classes
        )
        with evaluating(self):
            if generates(self.student) and self.inputs is None and self.reads is None:
                ids, lengths = generated_by(
                    self.student, prompts.ids, prompts.lengths, choose, tokens=tokens, end=self.end, pad=self.pad
                )
                texts = Rows(ids, lengths)
            else:
                following = functools.partial(self._following, batch.inputs)
                texts = continued(following, prompts, choose, tokens=tokens, end=self.end)
        targets = targets_of(prompts, texts, self.task.loss_options["ignore_index"])
        return Generated(inputs_of(batch.inputs, texts), targets, batch.index, batch.view)

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        step = super().forward(batch, teacher_output)
        if not isinstance(batch, Generated):
            return step
        nothing = step.output.new_zeros(2, dtype=torch.float32)  # hits among one's own tokens say nothing of the data
        return step._replace(output=step.output[:1, :1], score=nothing)

    @torch.no_grad()
    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        """Check the terms as `Distiller` does, and write behind a few prompts.

        Raises:
            RequestError: What `Distiller.prepare` raises; samples without an index; a prompt that fills the samples; or
                a student that cannot be run on shorter texts.
        """
        super().prepare(batch, teacher_output)
        ids = _ids(batch.inputs)
        if int(batch.index.min()) < 0:
            raise RequestError(
                "what a student writes is drawn by the sample's index, and the loader gives none: load by "
                "limbeck.data.make_loader, or give triples (inputs, targets, index)"
            )
        if self.prompt is not None and self.prompt >= ids.shape[1]:
            raise RequestError(f"prompt {self.prompt} leaves nothing to write of samples of {ids.shape[1]} tokens")
        try:
            self.written(batch.first(FEW))
        except Exception as error:  # the student may be anybody's
            reason = str(error) if isinstance(error, RequestError | RuntimeError) else repr(error)
            raise RequestError(f"the student cannot write behind the first samples' prompts: {reason}") from error

    def _weight_of_labels(self, batch: Batch) -> float:
        return 0.0 if isinstance(batch, Generated) else super()._weight_of_labels(batch)

    def _following(self, inputs: Inputs, rows: Rows) -> Tensor:
        """(b, V) logits of what follows each of some texts, which take the place of those in a batch's inputs."""
        return rows.last(self.predict(inputs_of(inputs, rows)))

    def _share(self, epoch: int) -> float:
        share = self.share(epoch) if callable(self.share) else self.share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise RequestError(f"share, of batches that the student writes, lies between 0 and 1, and it is {share!r}")
        return float(share)

    def _prompts(self, batch: Batch) -> Rows:
        ids, targets = _ids(batch.inputs), batch.targets
        mask = batch.inputs.get(MASK) if isinstance(batch.inputs, Mapping) else None
        place = torch.arange(ids.shape[1], device=ids.device)
        known = None if targets is None else self.task.known(targets)
        if isinstance(mask, Tensor):
            sizes = mask.sum(1)
        elif known is None:
            sizes = torch.full_like(place[:1], ids.shape[1]).expand(len(ids))
        else:  # of a text that is filled up, the last token that is learned is its end
            sizes = torch.where(known, place + 2, 0).amax(1)
        if self.prompt is not None:
            lengths = sizes.clamp(max=self.prompt)
        elif known is None:
            raise RequestError("without labels nothing shows where a prompt ends: say how many tokens it has, prompt=")
        else:
            lengths = torch.where(known, place + 1, ids.shape[1]).amin(1)
        lengths = torch.where(lengths < 1, ids.shape[1], lengths)
        rows = Rows(ids, lengths)
        return Rows(torch.where(rows.mask, ids, self.pad), lengths)


def _ids(inputs: Inputs) -> Tensor:
    found = inputs.get(IDS) if isinstance(inputs, Mapping) else inputs
    if not isinstance(found, Tensor) or found.dim() != 2 or found.is_floating_point():
        shapes = ", ".join(str(tuple(one.shape)) for one in tensors_of(inputs))
        raise RequestError(f"a student that writes texts reads {IDS} (B, L), and the samples are {shapes}")
    return found


def inputs_of(inputs: Inputs, rows: Rows) -> Inputs:
    """These texts in the form of a batch's inputs."""
    if not isinstance(inputs, Mapping):
        return rows.ids
    return {IDS: rows.ids, **({MASK: rows.mask.to(_kind(inputs[MASK]))} if MASK in inputs else {})}


def _kind(mask: Any) -> torch.dtype:
    kind: torch.dtype = mask.dtype
    return kind


def _check(*, temperature: float, **counts: int | None) -> None:
    check_options(temperature=temperature)
    for name, value in counts.items():
        if value is not None and not is_whole(value, 1):
            raise RequestError(f"{name} is a whole number of 1 or more, not {value!r}")

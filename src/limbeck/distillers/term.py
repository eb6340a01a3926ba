"""A term: one weighted distillation loss between a student tap and a teacher tap."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from limbeck import adapters
from limbeck.distillers.by_epoch import ByEpoch
from limbeck.distillers.padding import Tapped, tokens_in, without_padding
from limbeck.distillers.signatures import FROM_BATCH, TOKENS, check_options, defaults, keywords, made_by
from limbeck.distillers.vocabulary import first_classes
from limbeck.errors import RequestError, shown
from limbeck.losses.precision import call_loss
from limbeck.options import is_number
from limbeck.taps import LOGITS
from limbeck.types import Batch

Names = str | tuple[str, ...]
Weight = float | Callable[[int], float]
"""A number, or a function of the epoch (from 0) such as `ramp(20)`."""

ENDS = (0, 10**9)
"""The first epoch, and one after every schedule."""


class Term:
    """One distillation loss with its weight, the two tensors it compares, and its options.

    Args:
        loss: A function `loss(student, teacher, *, options) -> Tensor` of `limbeck.losses` or your own, given `targets`
            and `index` of the batch, `term_weight`, the number `epoch` (from 0), and `tokens`, where hidden tensors of
            texts hold no padding (booleans that broadcast over the student's, or None), where it has parameters of
            these names; a module with the same call; or a class with `for_shapes(student, teacher, **options)`, built
            when shapes are known. It computes in fp32, without autocast, unless `limbeck.losses.own_precision` marks
            it; adapters are layers, and run in autocast. What it gives is averaged over all samples, those without a
            label (-100) too.
        weight: Factor of the loss in the sum; a number, or a function of the epoch (from 0).
        student: The student's tap, whose tensor the loss gets, or a tuple of taps for a tuple of tensors, also an
            empty one; "logits" is its output.
        teacher: The teacher's tap, or a tuple of taps.
        adapter: None, or what brings the student's tensor to the teacher's shape: "auto", another name of
            `limbeck.adapters.KINDS`, a module, or a function of both shapes. For tuples, one for each pair of taps.
        name: How metrics call the term; the loss's name by default.
        **options: Options of the loss, checked here against its signature; a number may follow a schedule by epoch,
            as in temperature=cosine(8, 2, epochs=10) (`limbeck.distillers.by_epoch`).

    Raises:
        RequestError: An option that the loss does not take or that it lacks, an unknown adapter, tuples of unequal
            length with an adapter.

    >>> from limbeck import losses
    >>> Term(losses.kd, weight=0.9, temperature=4.0)
    Term(kd, weight=0.9, logits → logits, temperature=4.0)
    >>> Term(losses.kd, temprature=4.0)
    Traceback (most recent call last):
    limbeck.errors.RequestError: unknown option of loss kd 'temprature'; did you mean temperature?
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        *,
        weight: Weight = 1.0,
        student: Names = LOGITS,
        teacher: Names = LOGITS,
        adapter: adapters.Adapter | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        self.loss = loss
        self.weight = weight
        self.student = _names(student)
        self.teacher = _names(teacher)
        self.adapter = adapter
        self.name = name or _name(loss)
        self.options = options
        check_options(loss, options, self.name)
        if not (callable(weight) or is_number(weight)):
            raise RequestError(f"term {self.name}: weight is a number or a function of the epoch, not {shown(weight)}")
        for side, names in (("student", self.student), ("teacher", self.teacher)):
            if not all(isinstance(one, str) for one in _tuple(names)):
                raise RequestError(f"term {self.name}: {side} is a tap such as 'layer2', or some, not {shown(names)}")
        adapters.check(adapter)
        if adapter is not None and len(_tuple(self.student)) != len(_tuple(self.teacher)):
            raise RequestError(f"term {self.name}: {student} and {teacher} do not pair up, so no adapter can be made")

    @property
    def teacher_temperatures(self) -> tuple[float, ...]:
        """By what the teacher's logits are softened, by the loss's options or defaults; () where it reads none.

        A loss without a temperature has 1.
        """
        if LOGITS not in _tuple(self.teacher):
            return ()
        options = defaults(self.loss) | self.options
        own = options.get("teacher_temperature")
        value = options.get("temperature", options.get("temperatures")) if own is None else own
        if isinstance(value, ByEpoch):
            value = [value(epoch) for epoch in ENDS]
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(float(one) if isinstance(one, int | float) else 1.0 for one in values)

    def __repr__(self) -> str:
        parts = [self.name, f"weight={self.weight}", f"{self.student} → {self.teacher}"]
        parts += [f"adapter={self.adapter!r}"] if self.adapter is not None else []
        parts += [f"{key}={value!r}" for key, value in self.options.items()]
        return f"Term({', '.join(parts)})"


class BoundTerm(nn.Module):
    """A term inside a distiller: its trained parts, made once the shapes of its tensors are known.

    Args:
        term: What it is made of.
        task_options: What the loss gets of the task, where it has options of these names that the term leaves open.
    """

    def __init__(self, term: Term, task_options: Mapping[str, Any] = MappingProxyType({})) -> None:
        super().__init__()
        self.term = term
        self._task_options = {name: value for name, value in task_options.items() if name not in term.options}
        self.ready = term.adapter is None and not isinstance(term.loss, type)
        self._by_epoch = {name: one for name, one in term.options.items() if isinstance(one, ByEpoch)}
        self.classes: int | None = None  # so many of the first are compared where both tensors are logits
        self.adapters = nn.ModuleList()
        self._of_teacher: list[nn.Module] = []  # without parameters
        self._casts = False
        # A module is copied: two distillers made from one term must not share what they train.
        self.loss: Callable[..., Any] = copy.deepcopy(term.loss) if isinstance(term.loss, nn.Module) else term.loss

    def extra_repr(self) -> str:
        return repr(self.term)

    def place(self, device: torch.device) -> None:
        """Move the modules among the loss's options, such as a teacher's classifier, which are not trained."""
        for option in self.term.options.values():
            if isinstance(option, nn.Module):
                option.to(device)

    def build(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> None:
        """Size the adapters and a loss with state by one example of its tensors."""
        s, t = self._tensors(student, teacher)
        device = _tuple(t)[0].device if s == () else _tuple(s)[0].device
        try:
            if self.term.adapter is not None:
                self._of_teacher.clear()
                for a, b in zip(_tuple(s), _tuple(t), strict=True):
                    self._of_teacher.append(adapters.of_teacher(self.term.adapter, tuple(a.shape), tuple(b.shape)))
                    shape = tuple(self._of_teacher[-1](b).shape)
                    adapter = adapters.make(self.term.adapter, tuple(a.shape), shape)
                    self.adapters.append(adapter.double() if a.dtype == torch.float64 else adapter)
                    self._casts |= any(weight.dtype != a.dtype for weight in adapter.parameters())
            self.adapters.to(device)
            made = made_by(self.term.loss)
            if made is not None:
                adapted = _shapes(self._adapt(s)), _shapes(self._adapt_teacher(t))
                self.loss = made.for_shapes(*adapted, **self.term.options).to(device)
        except (RequestError, RuntimeError) as error:
            raise RequestError(f"term {self.term.name} ({self.term.student} → {self.term.teacher}): {error}") from error
        self.ready = True

    def forward(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        weight: float = 1.0,
        epoch: int = 0,
    ) -> Tensor:
        """The term's loss, averaged over the batch, without its weight, of which only the loss itself may be told."""
        s, t = self._tensors(student, teacher)
        options = self.options(epoch, batch.targets is not None)
        known = keywords(self.loss)
        from_batch = {name: FROM_BATCH[name](batch) for name in known & FROM_BATCH.keys()}
        mask = batch.mask
        s, t = self._adapt(s, mask), self._adapt_teacher(t, batch.teacher_mask)
        of_training = {"term_weight": weight, "epoch": epoch, TOKENS: tokens_in(mask, s)}
        options = {**options, **{name: of_training[name] for name in known & of_training.keys()}}
        loss = call_loss(self.loss, s, t, **options, **from_batch)
        if not isinstance(loss, Tensor):
            raise RequestError(f"its loss gives {type(loss).__name__} instead of a tensor")
        return loss.mean()

    def options(self, epoch: int, labelled: bool) -> Mapping[str, Any]:
        """What the loss gets in this epoch of the term and the task; `labelled`: the batch has targets."""
        options = {} if isinstance(self.term.loss, type) else self.term.options
        if self._by_epoch:
            options = {**options, **{name: value(epoch) for name, value in self._by_epoch.items()}}
        for name in keywords(self.loss) & self._task_options.keys():
            if name != "ignore_index" or labelled:
                options = {**options, name: self._task_options[name]}
        return options

    def weight(self, epoch: int) -> float:
        """The weight in this epoch."""
        weight = self.term.weight
        return weight(epoch) if callable(weight) else weight

    @property
    def ends(self) -> Sequence[int]:
        """Epochs in which the options take their extreme values; one, if they are the same in all."""
        return ENDS if self._by_epoch else ENDS[:1]

    @property
    def compares_logits(self) -> bool:
        """Whether it reads the logits of both sides."""
        return LOGITS in _tuple(self.term.student) and LOGITS in _tuple(self.term.teacher)

    def _tensors(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> tuple[Tapped, Tapped]:
        if self.classes is not None and self.compares_logits:
            student, teacher = (
                {**some, LOGITS: first_classes(some[LOGITS], self.classes)} for some in (student, teacher)
            )
        return _pick(student, self.term.student), _pick(teacher, self.term.teacher)

    def _adapt(self, student: Tapped, mask: Tensor | None = None) -> Tapped:
        return without_padding(student, self.term.student, mask, self.adapters, self._adapted)

    def _adapt_teacher(self, teacher: Tapped, mask: Tensor | None = None) -> Tapped:
        return without_padding(teacher, self.term.teacher, mask, self._of_teacher, self._adapted)

    def _adapted(self, adapter: nn.Module, x: Tensor) -> Tensor:
        if self._casts:  # a student in bf16, whose adapters are in fp32 as its losses are
            x = x.to(next(adapter.parameters(), x).dtype)
        adapted: Tensor = adapter(x)
        return adapted


def _name(loss: Any) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


def _names(names: Names | list[str]) -> Names:
    return tuple(names) if isinstance(names, list) else names


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _pick(tensors: Mapping[str, Tensor], names: Names) -> Tapped:
    return tensors[names] if isinstance(names, str) else tuple(tensors[name] for name in names)


def _shapes(value: Tapped) -> Any:
    return tuple(tuple(x.shape) for x in value) if isinstance(value, tuple) else tuple(value.shape)

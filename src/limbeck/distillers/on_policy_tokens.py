"""On-policy distillation of language models whose logits are never all there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from limbeck.distillers.continuation import Rows
from limbeck.distillers.on_policy import OnPolicyDistiller, inputs_of
from limbeck.distillers.term import Term
from limbeck.distillers.tokens import TokenDistiller
from limbeck.models.output_head import OutputHead
from limbeck.tasks import Task
from limbeck.types import Inputs


# The texts of the one and the losses of the other, which know nothing of each other.
class OnPolicyTokenDistiller(OnPolicyDistiller, TokenDistiller):
    """An `OnPolicyDistiller` whose losses go through the student's head, in chunks, as those of a `TokenDistiller`.

    Loss and gradients are those of `OnPolicyDistiller` on the same texts; of the student's logits, some tokens' are
    there at once, and while it writes those of the next token alone.

    Args:
        student: A causal language model; logits are those of a head on its hidden states.
        terms: Losses on logits that give one value a sample, such as `Term(losses.jsd, beta=0.5, temperature=1.0)`.
        share, prompt, new_tokens, temperature, end, pad, seed, task_weight: As for `OnPolicyDistiller`.
        task, inputs, common_classes: Likewise.
        head, scale, cap, chunk, teacher, teacher_head: As for `TokenDistiller`.

    Raises:
        RequestError: What `OnPolicyDistiller` and `TokenDistiller` raise.

    Transfers: what the teacher says of the student's own texts.
    Use: as `OnPolicyDistiller`, with large vocabularies.
    Source: that of `OnPolicyDistiller`.
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
        head: str | OutputHead | None = None,
        scale: float | None = None,
        cap: float | None = None,
        chunk: int | None = None,
        teacher: nn.Module | None = None,
        teacher_head: str | OutputHead | None = None,
    ) -> None:
        TokenDistiller.__init__(
            self,
            student,
            terms,
            task=task,
            task_weight=task_weight,
            inputs=inputs,
            common_classes=common_classes,
            head=head,
            scale=scale,
            cap=cap,
            chunk=chunk,
            teacher=teacher,
            teacher_head=teacher_head,
        )
        self._writes(share, prompt, new_tokens, temperature, end, pad, seed)

    def _following(self, inputs: Inputs, rows: Rows) -> Tensor:
        student = self._student_taps.run_to_last(self.prepared(inputs_of(inputs, rows)))
        head = self.head.of(self.student)
        return head(rows.last(student[self.head.hidden]).to(head.weight.dtype))

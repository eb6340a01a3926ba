"""Texts as the tokens of whoever reads them: the student, and beside it a teacher with a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.data.text.texts import IDS, Texts, mask_of, padded
from limbeck.data.text.tokenizers import Tokenizer, read_tokenizer
from limbeck.errors import counted
from limbeck.models.foreign.hugging_face_sentences import OfTexts, said_of_texts
from limbeck.types import MASK, TEACHER, Inputs


@dataclass
class Readings:
    """How texts become the inputs of a batch.

    Attributes:
        tokenizer: The student's.
        length: Tokens of a text at most; longer ones are cut.
        teacher: The teacher's own tokenizer, its tokens at most, and what its folder says of texts; None where the
            teacher reads the student's.
        cut: How many texts were cut so far, for the student and for the teacher.
    """

    tokenizer: Tokenizer
    length: int
    teacher: tuple[Tokenizer, int, OfTexts] | None = None
    cut: list[int] = field(default_factory=lambda: [0, 0])

    @classmethod
    def of(cls, tokenizer: Tokenizer, length: int, teacher: str | None, teacher_length: int | None) -> Readings:
        """As data options say it; without a length the teacher's folder says it, else it is that of the student.

        Raises:
            RequestError: The teacher's tokenizer cannot be read.
        """
        if teacher is None:
            return cls(tokenizer, length)
        said = said_of_texts(Path(teacher))
        return cls(tokenizer, length, (read_tokenizer(Path(teacher)), teacher_length or said.length or length, said))

    @property
    def note(self) -> str:
        """How many texts were cut; empty where none was."""
        lengths = (self.length, 0 if self.teacher is None else self.teacher[1])
        notes = [
            f"{counted(cut, 'text')} longer than {length} tokens are cut{whose}"
            for cut, length, whose in zip(self.cut, lengths, ("", " for the teacher"), strict=True)
            if cut
        ]
        return "; ".join(notes)

    def split(self, rows: Sequence[str], targets: Tensor, **options: Any) -> Texts:
        """Texts with their targets (N, …); `options` are those of `Texts`."""
        inputs: dict[str, Inputs] = {}
        own, sizes, cut = ids_of(rows, self.tokenizer, self.length)
        inputs |= own
        digest, theirs = "", None
        self.cut[0] += cut
        if self.teacher is not None:
            tokenizer, length, said = self.teacher
            inputs[TEACHER], theirs, cut = ids_of(said.prepared(rows), tokenizer, length)
            digest = tokenizer.digest
            self.cut[1] += cut
        mine = self.tokenizer.digest
        return Texts(inputs, targets, mine, sizes, teacher_sizes=theirs, teacher_tokenizer=digest, **options)


def ids_of(rows: Sequence[str], tokenizer: Tokenizer, length: int) -> tuple[dict[str, Tensor], Tensor, int]:
    """The inputs (N, length) of some texts with their special tokens; their sizes (N,); and how many were cut."""
    ids, cut = tokenizer.framed(rows, length)
    sizes = torch.tensor([len(row) for row in ids])
    return {IDS: padded(ids, length, tokenizer.pad), MASK: mask_of(sizes, length)}, sizes, cut

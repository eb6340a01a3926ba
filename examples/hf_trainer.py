"""transformers' own Trainer with limbeck's losses: a large text classifier teaches a small one.

    python examples/hf_trainer.py

The Trainer's model is the Distiller, so that adapters are trained with the student, on one device or on several.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from limbeck import Distiller, ModuleTeacher, Teacher, Term, losses


class DistillationTrainer(Trainer):
    """A Trainer of limbeck's Distiller; a batch is a dict of a model's inputs with "labels"."""

    def __init__(self, distiller: Distiller, teacher: Teacher, args: TrainingArguments, **options: Any) -> None:
        args.remove_unused_columns, args.label_names = False, ["labels"]
        super().__init__(distiller, args, **options)
        self.task, self.teacher = distiller.task, teacher

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
    ) -> Any:
        batch = self.task.batch(inputs)
        step = model(batch, self.teacher(batch))
        return (step.loss, {"loss": step.loss, "logits": step.logits}) if return_outputs else step.loss


def classifier(width: int, layers: int) -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=64,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=12,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=4,
        )
    )


def texts(count: int) -> list[dict[str, Any]]:
    """Twelve words each; one of the words 0 to 3 stands somewhere, and is what the text is about."""
    words, labels = torch.randint(4, 64, (count, 12)), torch.randint(4, (count,))
    words[torch.arange(count), torch.randint(12, (count,))] = labels
    return [{"input_ids": one, "labels": label} for one, label in zip(words, labels, strict=True)]


def main() -> float:
    torch.manual_seed(0)
    train, held_out = texts(1536), texts(256)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, num_train_epochs=4, learning_rate=5e-3, per_device_train_batch_size=32, report_to="none",
            save_strategy="no", disable_tqdm=True, logging_strategy="no", use_cpu=True,
        )  # fmt: skip
        big, small = classifier(32, 2), classifier(32, 1)
        Trainer(big, args, train_dataset=train).train()
        distiller = Distiller(small, [Term(losses.kd, weight=0.9, temperature=2.0)], task_weight=0.1)
        trainer = DistillationTrainer(
            distiller, ModuleTeacher(big), args, train_dataset=train, eval_dataset=held_out,
            compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()},
        )  # fmt: skip
        trainer.train()
        accuracy = float(trainer.evaluate()["eval_accuracy"])
        small.save_pretrained(folder)
    print(f"student: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()

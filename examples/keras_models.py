"""The Keras example's `Distiller`, with limbeck: both networks are Keras's, before and after.

    KERAS_BACKEND=torch python examples/keras_models.py

Needs pip install limbeck[keras]. What the example's `compile` takes has its place here:

    alpha=0.1, student_loss_fn             task_weight=0.1: the share of the loss on the labels
    temperature=10, distillation_loss_fn   Term(losses.kd, weight=0.9, temperature=10), the factor T² within
    Distiller(student, teacher).fit(x, y)  fit(Distiller(KerasModel(student), …), loader, teacher=KerasModel(teacher))
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, KerasModel, Term, fit, losses


def network(channels: int) -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(channels, 3, padding="same"),
            keras.layers.LeakyReLU(negative_slope=0.2),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


def compiled(model: Any) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss, metrics=["sparse_categorical_accuracy"])
    return model


def main() -> float:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x, y = digits.images[..., None].astype("float32") / 16, digits.target
    held_out = [n % 5 == 0 for n in range(len(y))]
    learned = [not one for one in held_out]

    teacher = compiled(network(32))
    teacher.fit(x[learned], y[learned], batch_size=32, epochs=3, verbose=0)

    student = network(4)
    images = torch.from_numpy(x[learned]).permute(0, 3, 1, 2)  # limbeck's images are (B, C, H, W), Keras's (B, H, W, C)
    loader = DataLoader(TensorDataset(images, torch.from_numpy(y[learned])), batch_size=32, shuffle=True)
    terms = [Term(losses.kd, weight=0.9, temperature=10.0)]
    fit(
        Distiller(KerasModel(student), terms, task_weight=0.1),
        loader,
        teacher=KerasModel(teacher),
        epochs=5,
        optimizer=partial(torch.optim.Adam, lr=3e-3),
    )

    _, accuracy = compiled(student).evaluate(x[held_out], y[held_out], verbose=0)  # the student is still Keras's
    print(f"student {accuracy:.4f}")
    return float(accuracy)


if __name__ == "__main__":
    main()

"""The Keras example's `Distiller` on one backend, as a process of its own: prints the seconds of a step.

    KERAS_BACKEND=tensorflow python benchmarks/keras_distiller.py IMAGES.npz STEPS

The file holds "x" (N, 28, 28, 1) of 0–1 and "y" (N,). Needs Keras 3.8 or newer and nothing of limbeck.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import keras
import numpy as np
from keras import layers, ops

TEMPERATURE, TASK_WEIGHT, BATCH, WARM = 10.0, 0.1, 32, 50


class Distiller(keras.Model):  # type: ignore[misc]  # Keras has no types
    """The student, with the teacher's softened answer in its loss."""

    def __init__(self, student: Any, teacher: Any) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def call(self, x: Any, training: bool = False) -> Any:
        return self.student(x, training=training)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *more: Any, **named: Any) -> Any:
        said = ops.stop_gradient(self.teacher(x, training=False))
        task = ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))
        soft = ops.softmax(said / TEMPERATURE, axis=1)
        divergence = keras.losses.kl_divergence(soft, ops.softmax(y_pred / TEMPERATURE, axis=1))
        return TASK_WEIGHT * task + (1 - TASK_WEIGHT) * TEMPERATURE**2 * ops.mean(divergence)


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes when each batch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.times.append(time.perf_counter())


def network(first: int, second: int) -> Any:
    """Two convolutions of the example."""
    return keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            layers.Conv2D(first, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.MaxPooling2D(pool_size=2, strides=1, padding="same"),
            layers.Conv2D(second, 3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def main() -> None:
    data, steps = np.load(sys.argv[1]), int(sys.argv[2])
    count = (WARM + steps) * BATCH
    model = Distiller(network(16, 32), network(256, 512))
    model.teacher.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    clock = Clock()
    model.fit(data["x"][:count], data["y"][:count], batch_size=BATCH, epochs=1, verbose=0, callbacks=[clock])
    seconds = (clock.times[-1] - clock.times[WARM - 1]) / steps
    print(json.dumps({"backend": keras.backend.backend(), "keras": keras.__version__, "seconds_a_step": seconds}))


if __name__ == "__main__":
    main()

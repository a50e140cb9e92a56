"""Keras' `fit` on TensorFlow."""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np

from benchmarks.peers.protocol import Accuracy, Advance, Job, open_line, read_job, serve


def main(folder: Path) -> None:
    """Serves one job."""
    line, job = open_line(), read_job(folder)
    serve(line, ("keras", "tensorflow", "numpy"), *central(job))


def central(job: Job) -> tuple[Advance, Accuracy]:
    """An epoch, or its beginning, is one `fit` that shuffles by itself."""
    keras.utils.set_random_seed(0)
    model = make_model(job)
    model.compile(
        optimizer=keras.optimizers.SGD(job.learning_rate, momentum=job.momentum),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images, labels = standardized(job, job.train_images), np.asarray(job.train_labels)
    held = job.order.shape[1]  # fewer than all where a round is but the beginning of an epoch

    def advance(numbers: range) -> None:
        for _ in numbers:
            model.fit(images[:held], labels[:held], batch_size=job.batch_size, verbose=0)

    def accuracy() -> float:
        test = standardized(job, job.test_images)
        return float(model.evaluate(test, np.asarray(job.test_labels), 256, verbose=0)[1])

    return advance, accuracy


def make_model(job: Job) -> keras.Model:
    """keras_cnn as the tutorial has it."""
    if job.model != "keras_cnn":
        raise ValueError(f"no Keras model for {job.model}")
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(job.train_images.shape[1:]),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(job.classes),
        ]
    )


def standardized(job: Job, images: np.ndarray) -> np.ndarray:
    """Floats of bytes."""
    mean, std = (255 * np.asarray(each, np.float32) for each in (job.mean, job.std))
    return (images.astype(np.float32) - mean) / std


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""FedJAX's federated averaging, with Haiku models."""

import sys
from pathlib import Path
from typing import Any

import fedjax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg

from benchmarks.peers.protocol import Accuracy, Advance, Job, open_line, read_job, serve

_PACKAGES = ("fedjax", "dm-haiku", "jax", "jaxlib", "numpy")


def main(folder: Path) -> None:
    """Serves one job."""
    # FedJAX 0.0.17 calls it by the name that JAX has dropped since.
    jax.tree_map = jax.tree.map  # type: ignore[attr-defined]
    line, job = open_line(), read_job(folder)
    serve(line, _PACKAGES, *federated(job))


def federated(job: Job) -> tuple[Advance, Accuracy]:
    """Rounds through `fed_avg.federated_averaging`."""
    model = make_model(job)
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        client_optimizer=fedjax.optimizers.sgd(job.learning_rate),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(
            batch_size=job.batch_size, num_epochs=1, drop_remainder=False
        ),
    )
    state = algorithm.init(model.init(jax.random.key(0)))

    def advance(numbers: range) -> None:
        nonlocal state
        for number in numbers:
            cohort = job.cohorts[number - 1]
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), number), len(cohort))
            clients = [
                (int(i), client_dataset(job, job.clients[i]), key)
                for i, key in zip(cohort, keys, strict=True)
            ]
            state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)

    def accuracy() -> float:
        test = examples(job, job.test_images, job.test_labels)
        batches = fedjax.ClientDataset(test).padded_batch(batch_size=256)
        return float(fedjax.evaluate_model(model, state.params, batches)["accuracy"])

    return advance, accuracy


def client_dataset(job: Job, own: np.ndarray) -> fedjax.ClientDataset:
    """What a client holds."""
    return fedjax.ClientDataset(examples(job, job.train_images[own], job.train_labels[own]))


def examples(job: Job, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Standardized pixels and labels."""
    mean, std = (255 * np.asarray(each, np.float32) for each in (job.mean, job.std))
    return {"x": (images.astype(np.float32) - mean) / std, "y": np.asarray(labels)}


# --- models ---------------------------------------------------------------------------------------


def make_model(job: Job) -> fedjax.Model:
    """The job's model; layers as in lepton-jax, weights as Haiku draws them."""
    nets = {"keras_cnn": keras_cnn, "fedavg_cnn": fedavg_cnn, "resnet8": resnet8}
    net = nets[job.model]

    def forward(batch: dict[str, Any]) -> jax.Array:
        return net(batch["x"], job.classes)

    sample = examples(job, job.train_images[:1], job.train_labels[:1])
    return fedjax.create_model_from_haiku(
        transformed_forward_pass=hk.transform(forward),
        sample_batch=sample,
        train_loss=lambda batch, logits: fedjax.metrics.unreduced_cross_entropy_loss(
            batch["y"], logits
        ),
        eval_metrics={"accuracy": fedjax.metrics.Accuracy()},
    )


def keras_cnn(x: jax.Array, classes: int) -> jax.Array:
    """The classic Keras tutorial."""
    x = _pool(jax.nn.relu(hk.Conv2D(32, 3, padding="VALID")(x)))
    x = _pool(jax.nn.relu(hk.Conv2D(64, 3, padding="VALID")(x)))
    x = hk.Flatten()(jax.nn.relu(hk.Conv2D(64, 3, padding="VALID")(x)))
    return hk.Linear(classes)(jax.nn.relu(hk.Linear(64)(x)))


def fedavg_cnn(x: jax.Array, classes: int) -> jax.Array:
    """The CNN of McMahan et al. (2017)."""
    x = _pool(jax.nn.relu(hk.Conv2D(32, 5)(x)))
    x = hk.Flatten()(_pool(jax.nn.relu(hk.Conv2D(64, 5)(x))))
    return hk.Linear(classes)(jax.nn.relu(hk.Linear(512)(x)))


def resnet8(x: jax.Array, classes: int) -> jax.Array:
    """MLPerf Tiny's ResNet-8 with GroupNorm, four channels a group."""
    x = jax.nn.relu(_group_norm(hk.Conv2D(16, 3)(x)))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = jax.nn.relu(_group_norm(hk.Conv2D(width, 3, stride)(x)))
        y = _group_norm(hk.Conv2D(width, 3)(y))
        x = jax.nn.relu(y + (hk.Conv2D(width, 1, stride)(x) if stride > 1 else x))
    return hk.Linear(classes)(jnp.mean(x, (1, 2)))


def _group_norm(x: jax.Array) -> jax.Array:
    return hk.GroupNorm(x.shape[-1] // 4)(x)


def _pool(x: jax.Array) -> jax.Array:
    return hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""pfl-research's FederatedAveraging over a simulated backend, in one process."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.peers.protocol import Job, open_line, read_job, turns
from benchmarks.peers.torch_models import accuracy, make_model, to_input


def main(folder: Path) -> None:
    """Serves one job: pfl owns the loop, so it is held up after each of its rounds."""
    line, job = open_line(), read_job(folder)
    torch.manual_seed(0)
    net = Net(make_model(job))
    begun = (
        number
        for numbers in turns(line, ("pfl", "torch", "numpy"), lambda: accuracy(net.net, job))
        for number in numbers
    )
    if next(begun, None) is None:
        return
    users = federated_dataset(job)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=len(job.cohorts) + 1,
            evaluation_frequency=len(job.cohorts) + 2,  # as good as never
            train_cohort_size=job.cohorts.shape[1],
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=users, val_data=users),
        model=PyTorchModel(
            model=net,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=job.learning_rate,
            local_batch_size=job.batch_size,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=256),
        callbacks=[Turnstile(begun)],
        send_metrics_to_platform=False,
    )


class Net(nn.Module):
    """A model as pfl wants it: it knows its loss and its metrics."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.train()
        return cross_entropy(self(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        self.eval()
        with torch.inference_mode():
            return {"loss": Weighted(cross_entropy(self(x), y, reduction="sum").item(), len(y))}


class Turnstile(TrainingProcessCallback):
    """Lets pfl go on when it is its turn, and stops it when there are no more turns."""

    def __init__(self, begun: Iterator[int]) -> None:
        self.begun = begun

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        return next(self.begun, None) is None, Metrics()


def federated_dataset(job: Job) -> FederatedDataset:
    """The job's clients, sampled as its cohorts say; their images become tensors when asked for."""
    rng = np.random.default_rng(0)

    def make(user: int) -> PyTorchTensorDataset:
        own = rng.permutation(job.clients[user])
        images = to_input(torch.from_numpy(job.train_images[own]), job)
        labels = torch.from_numpy(job.train_labels[own]).long()
        return PyTorchTensorDataset(tensors=[images, labels], user_id=str(user))

    sampled: Callable[[], int] = map(int, [*job.cohorts.flat, *job.cohorts[0]]).__next__
    return FederatedDataset(make, sampled)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Opacus: DP-SGD in PyTorch, by one of its ways to the gradient of each example.

python -m benchmarks.peers.opacus JOB hooks|functorch|ghost
"""

import os
import sys
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.protocol import Accuracy, Advance, Job, open_line, read_job, serve
from benchmarks.peers.torch_models import accuracy, make_model, to_input


def main(folder: Path, mode: str) -> None:
    """Serves one job."""
    line, job = open_line(), read_job(folder)
    warnings.filterwarnings("ignore")  # on secure random numbers, which nobody draws here
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    serve(line, ("opacus", "torch", "numpy"), *private(job, mode))


class Images(Dataset):
    """A batch at a time, standardized beforehand: reading one by one would take longer than steps."""

    def __init__(self, job: Job) -> None:
        self.images = to_input(torch.from_numpy(np.array(job.train_images)), job)
        self.labels = torch.from_numpy(np.array(job.train_labels)).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]


def private(job: Job, mode: str) -> tuple[Advance, Accuracy]:
    """Steps on Poisson batches, with the noise drawn."""
    torch.manual_seed(0)
    model = make_model(job).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=job.learning_rate, momentum=job.momentum)
    loader = DataLoader(Images(job), batch_size=job.batch_size, collate_fn=lambda batch: batch)
    made: Any = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        data_loader=loader,
        noise_multiplier=job.noise_multiplier,
        max_grad_norm=job.clip_norm,
        grad_sample_mode=mode,
    )
    if mode == "ghost":
        whole, optimizer, criterion, batches = made
    else:
        (whole, optimizer, batches), criterion = made, nn.CrossEntropyLoss()

    def advance(numbers: range) -> None:
        for _ in numbers:
            for images, labels in islice(batches, job.steps):
                optimizer.zero_grad()
                criterion(whole(images), labels).backward()
                optimizer.step()

    return advance, lambda: accuracy(whole, job)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

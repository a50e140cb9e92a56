"""A tuned PyTorch loop: channels last, over two threads or over two processes of one thread each.

    python -m benchmarks.peers.torch JOB threads|processes

Over processes, federated clients and batches of inference are dealt to them, and a central batch is
split by DistributedDataParallel. All processes run the same code and meet in sums.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from benchmarks.peers.protocol import Accuracy, Advance, Job, open_line, read_job, serve
from benchmarks.peers.torch_models import accuracy, make_model, to_input

_PACKAGES = ("torch", "numpy")


class Place(NamedTuple):
    """Which of the processes this is, and how many there are."""

    rank: int
    world: int


def main(folder: Path, variant: str) -> None:
    """Serves one job."""
    line = open_line()
    cores = len(os.sched_getaffinity(0))
    job = read_job(folder)
    if variant == "threads":
        torch.set_num_threads(cores)
        serve(line, _PACKAGES, *_work(job, Place(0, 1)))
        return
    with TemporaryDirectory() as meeting:
        context = multiprocessing.get_context("spawn")
        others = []
        for rank in range(1, cores):
            here, there = context.Pipe()
            arguments = (folder, Place(rank, cores), Path(meeting) / "store", there)
            context.Process(target=_follow, args=arguments, daemon=True).start()
            others.append(here)
        _join(Place(0, cores), Path(meeting) / "store")
        advance, measure = _work(job, Place(0, cores))

        def advance_all(numbers: range) -> None:
            for other in others:
                other.send(numbers)
            advance(numbers)

        serve(line, _PACKAGES, advance_all, measure)


def _follow(folder: Path, place: Place, store: Path, orders: Any) -> None:
    """Another process: does its part of every turn, until the first one hangs up."""
    _join(place, store)
    advance, _ = _work(read_job(folder), place)
    while True:
        try:
            advance(orders.recv())
        except EOFError:
            return


def _join(place: Place, store: Path) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=place.rank, world_size=place.world
    )


def _work(job: Job, place: Place) -> tuple[Advance, Accuracy]:
    torch.manual_seed(0)  # the same weights everywhere
    model = make_model(job).to(memory_format=torch.channels_last)
    kinds = {"federated": federated, "central": central, "inference": inference}
    return kinds[job.kind](
        job, model, place
    ), lambda: None if job.kind == "inference" else accuracy(model, job)


# --- federated ------------------------------------------------------------------------------------


def federated(job: Job, model: nn.Module, place: Place) -> Advance:
    """Federated averaging: each process trains its clients, then the sums meet."""
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=job.learning_rate, fused=True)

    def advance(numbers: range) -> None:
        for number in numbers:
            begin = [each.detach().clone() for each in parameters]
            total = [torch.zeros_like(each) for each in begin]
            cohort = job.cohorts[number - 1]
            for client in cohort[place.rank :: place.world]:
                torch._foreach_copy_([each.data for each in parameters], begin)
                train_client(job, model, optimizer, job.clients[client])
                torch._foreach_add_(total, [each.data for each in parameters])
            if place.world > 1:
                for each in total:
                    distributed.all_reduce(each)
            torch._foreach_div_(total, float(len(cohort)))  # all clients hold as many examples
            torch._foreach_copy_([each.data for each in parameters], total)

    return advance


def train_client(
    job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, own: np.ndarray
) -> None:
    """One local epoch."""
    images = to_input(torch.from_numpy(job.train_images[own]), job)
    labels = torch.from_numpy(job.train_labels[own]).long()
    for index in torch.randperm(len(own)).split(job.batch_size):
        _step(model, optimizer, images[index], labels[index])


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    optimizer.zero_grad(set_to_none=True)
    cross_entropy(model(images), labels).backward()
    optimizer.step()


# --- central --------------------------------------------------------------------------------------


def central(job: Job, model: nn.Module, place: Place) -> Advance:
    """Steps over a training split that is standardized beforehand."""
    whole = DistributedDataParallel(model) if place.world > 1 else model
    optimizer = torch.optim.SGD(
        whole.parameters(), lr=job.learning_rate, momentum=job.momentum, fused=True
    )
    images = to_input(torch.from_numpy(np.array(job.train_images)), job)
    labels = torch.from_numpy(np.array(job.train_labels)).long()

    def advance(numbers: range) -> None:
        for number in numbers:
            for index in torch.from_numpy(job.order[number - 1]).split(job.batch_size):
                own = index[place.rank :: place.world]
                _step(whole, optimizer, images[own], labels[own])

    return advance


# --- inference ------------------------------------------------------------------------------------


def inference(job: Job, model: nn.Module, place: Place) -> Advance:
    """The logits of the first test images, from bytes."""
    model.eval()
    images = torch.from_numpy(np.array(job.test_images[: job.steps * job.batch_size]))

    @torch.inference_mode()
    def advance(numbers: range) -> None:
        for _ in numbers:
            own = images.split(job.batch_size)[place.rank :: place.world]
            torch.cat([model(to_input(batch, job)) for batch in own])
            if place.world > 1:
                distributed.barrier()

    return advance


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""Flower's simulation engine: a ServerApp with FedAvg, a ClientApp in PyTorch, a core for each actor."""

import logging
import os
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

from benchmarks.peers.protocol import Job, Line, open_line, read_job, turns
from benchmarks.peers.torch_models import accuracy, make_model, to_input


def main(folder: Path) -> None:
    """Serves one job."""
    line, job = open_line(), read_job(folder)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    run_simulation(
        server_app=server(line, job),
        client_app=client(folder),
        num_supernodes=len(job.clients),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


def server(line: Line, job: Job) -> ServerApp:
    """Starts the strategy anew at each turn, from where the last one ended."""
    app = ServerApp()

    @app.main()
    def serve(grid: Grid, context: Context) -> None:
        torch.manual_seed(0)
        model = make_model(job)
        while len(list(grid.get_node_ids())) < len(job.clients):
            time.sleep(0.1)  # they are still signing in

        def measured() -> float:
            return accuracy(model, job)

        for numbers in turns(line, ("flwr", "ray", "torch", "numpy"), measured):
            result = Cohorts(job, numbers).start(
                grid=grid,
                initial_arrays=ArrayRecord(model.state_dict()),
                num_rounds=len(numbers),
                train_config=ConfigRecord(),
            )
            model.load_state_dict(result.arrays.to_torch_state_dict())

    return app


class Cohorts(FedAvg):
    """FedAvg whose cohorts are the job's: any node plays the client that it is told to be."""

    def __init__(self, job: Job, numbers: range) -> None:
        super().__init__(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=1)
        self.job, self.numbers = job, numbers

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        cohort = self.job.cohorts[self.numbers[server_round - 1] - 1]
        nodes = list(grid.get_node_ids())
        for played in cohort:
            told = ConfigRecord({"client": int(played), "server-round": server_round})
            content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: told})
            yield Message(content=content, message_type="train", dst_node_id=nodes[played])


def client(folder: Path) -> ClientApp:
    """Trains for a local epoch."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        job, model = prepared(folder)
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        own = job.clients[int(message.content["config"]["client"])]
        train_epoch(job, model, own)
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord({"num-examples": len(own)}),
            }
        )
        return Message(content=content, reply_to=message)

    return app


@cache
def prepared(folder: Path) -> tuple[Job, nn.Module]:
    """The job and a model, kept while their process lives."""
    torch.set_num_threads(1)
    job = read_job(folder)
    return job, make_model(job)


def train_epoch(job: Job, model: nn.Module, own: Any) -> None:
    """One local epoch of SGD."""
    images = to_input(torch.from_numpy(job.train_images[own]), job)
    labels = torch.from_numpy(job.train_labels[own]).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=job.learning_rate)
    model.train()
    for index in torch.randperm(len(own)).split(job.batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
        optimizer.step()


if __name__ == "__main__":
    # Ray's actors import what they are sent: by this module's name, as theirs is not `__main__`.
    from benchmarks.peers import flower

    flower.main(Path(sys.argv[1]))
    os._exit(0)  # Ray's own farewell may take half a minute

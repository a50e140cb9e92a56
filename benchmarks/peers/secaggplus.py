"""Flower's SecAgg+: its workflow and its client's mod, with messages handed over in one process."""

import copy
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters
from flwr.server import LegacyContext, ServerConfig, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.peers.protocol import Accuracy, Advance, open_line, serve
from benchmarks.peers.sums import SumJob, check_mean, one_core, read_sum_job, vectors


def main(folder: Path) -> None:
    """Serves one job."""
    line = open_line()
    one_core()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    packages = ("flwr", "cryptography", "pycryptodome", "numpy")
    serve(line, packages, *sums(read_sum_job(folder)))


def sums(job: SumJob) -> tuple[Advance, Accuracy]:
    """Rounds through `SecAggPlusWorkflow`; the model that goes out to the clients is empty."""
    # Which a server started by Flower's own commands would set; messages are written in its name.
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    own = vectors(job)
    grid = Grid(job, own)
    manager = SimpleClientManager()
    for i in range(job.clients):
        manager.register(GridClientProxy(i, grid, run_id=1))
    strategy = Mean(min_fit_clients=job.clients, min_available_clients=job.clients)
    context = LegacyContext(nobody(0), ServerConfig(1), strategy, manager)
    workflow = SecAggPlusWorkflow(
        num_shares=job.degree + 1,
        reconstruction_threshold=job.threshold,
        max_weight=1.0,
        clipping_range=job.clip,
        quantization_range=job.levels,
    )

    def advance(numbers: range) -> None:
        for number in numbers:
            grid.begin()
            told = ConfigRecord({WorkflowKey.CURRENT_ROUND: number})
            context.state[MAIN_CONFIGS_RECORD] = told
            context.state[MAIN_PARAMS_RECORD] = ArrayRecord()
            workflow(grid, context)

    def checked() -> None:
        found = context.state[MAIN_PARAMS_RECORD]
        parameters = arrayrecord_to_parameters(found, keep_input=True)
        check_mean(job, own, parameters_to_ndarrays(parameters)[0])

    return advance, checked


class Mean(FedAvg):
    """Takes the mean as the workflow has it: it hands each client's result over with the mean in it."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return results[0][1].parameters, {}


class Grid:
    """Hands messages over, one client after another; some are gone when vectors are collected."""

    def __init__(self, job: SumJob, own: np.ndarray) -> None:
        self.job, self.contexts = job, dict[int, Context]()
        self.app = ClientApp(
            lambda context: Holder(own[context.node_id]).to_client(), [secaggplus_mod]
        )

    def begin(self) -> None:
        """A round's clients know nothing of the round before."""
        self.contexts = {i: nobody(i) for i in range(self.job.clients)}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """The clients' answers."""
        return [self.answer(message) for message in messages]

    def answer(self, message: Message) -> Message:
        """One client's answer; it takes apart a copy, as many are sent the same content."""
        i = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if i < self.job.gone and stage == Stage.COLLECT_MASKED_VECTORS:
            return Message(Error(0, "gone"), reply_to=message)
        return self.app(copy.deepcopy(message), self.contexts[i])


class Holder(NumPyClient):
    """Has a vector for an update, whatever model it is sent."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector

    def fit(self, parameters: Any, config: Any) -> tuple[list[np.ndarray], int, dict]:
        return [self.vector], 1, {}


def nobody(node: int) -> Context:
    """The context of a node that has seen nothing yet."""
    return Context(1, node, {}, RecordDict(), {})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

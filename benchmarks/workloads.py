"""What can be measured: a table of workloads, each of them with its configuration and its peers."""

from typing import Literal, NamedTuple

from lepton_jax import config
from lepton_jax.checks import UserError, suggestion

Kind = Literal["federated", "central", "private", "inference", "matmul"]
PEERS = ("torch", "pfl", "flower", "fedjax", "keras", "opacus", "secaggplus")
FEDERATED_PEERS = ("torch", "pfl", "flower", "fedjax")


class Workload(NamedTuple):
    """One thing to measure.

    Attributes:
      name: as the command line has it.
      kind: what a round of it is.
      run: lepton-jax' configuration; the peers' job is derived from it.
      peers: who can do it too.
      rounds: of one repetition; a repetition should take some seconds.
      steps: of a central or private round; batches of a round of inference.
    """

    name: str
    kind: Kind
    run: config.Run
    peers: tuple[str, ...] = ("torch",)
    rounds: int = 1
    steps: int = 0

    @property
    def batch_size(self) -> int:
        """B, of a step."""
        if self.kind == "federated":
            size = self.run.federated.batch_size
            assert isinstance(size, int)  # the table below has no "all"
            return size
        return self.run.train.batch_size


def find(name: str) -> Workload:
    """The workload of this name.

    Raises:
      UserError: there is none.

    >>> find("W2").run.federated.clients
    100
    """
    for workload in WORKLOADS:
        if workload.name == name:
            return workload
    raise unknown("WORKLOAD", name, (*(each.name for each in WORKLOADS), *SPECIAL))


def peers_of(name: str) -> tuple[str, ...]:
    """Who can do a workload too; nobody where lepton-jax is measured alone."""
    return SPECIAL[name] if name in SPECIAL else find(name).peers


def choose_peers(workload: str, against: str | None) -> tuple[str, ...]:
    """The peers that `--against` names, or the first that a workload has.

    Raises:
      UserError: there is no such peer, or it can't do this.

    >>> choose_peers("W2", None), choose_peers("W2", "pfl,fedjax"), choose_peers("clients", None)
    (('torch',), ('pfl', 'fedjax'), ())
    """
    able = peers_of(workload)
    if against is None:
        return able[:1]
    chosen = tuple(filter(None, against.split(",")))
    for peer in chosen:
        if peer not in PEERS:
            raise unknown("--against", peer, PEERS)
        if peer not in able:
            expected = f"peers of {workload} ({', '.join(able) or 'none: lepton-jax alone'})"
            raise UserError("--against", expected, repr(peer))
    return chosen


def unknown(where: str, name: str, known: tuple[str, ...]) -> UserError:
    """The refusal of a name that nothing has."""
    return UserError(where, f"one of {', '.join(known)}", repr(name), suggestion(name, known))


# --- the table ------------------------------------------------------------------------------------


def _federated(
    name: str, data: config.Data, model: config.Model, settings: config.Federated, rounds: int
) -> Workload:
    run = config.Run(name=name, data=data, model=model, federated=settings)
    return Workload(name, "federated", run, FEDERATED_PEERS, rounds)


def cohorts(clients: int, chosen: int, batch: int) -> config.Federated:
    """Clients of one region that all hold as many images, of which some train each round."""
    return config.Federated(
        clients=clients,
        regions=("all",),
        partition=config.Iid(),
        holdout_fraction=0.0,
        clients_per_round=chosen,
        batch_size=batch,
        client=config.Sgd(learning_rate=0.1),
    )


def _central(name: str, batch: int, steps: int, *peers: str) -> Workload:
    train = config.Train(batch_size=batch, optimizer=config.Sgd(learning_rate=0.05, momentum=0.9))
    run = config.Run(name=name, data=_data(name), model=_model(name), train=train)
    return Workload(f"central-{name}-{batch}", "central", run, ("torch", *peers), 1, steps)


def _private(name: str, randomness: config.Randomness, *peers: str) -> Workload:
    model, batch, steps = "keras_cnn", 256, 60
    privacy = config.Privacy(noise_multiplier=1.1, clip_norm=1.0, randomness=randomness)
    train = config.Train(
        batch_size=batch, optimizer=config.Sgd(learning_rate=0.25), privacy=privacy
    )
    run = config.Run(name=model, data=_data(model), model=_model(model), train=train)
    return Workload(name, "private", run, peers, 1, steps)


def _inference(name: str) -> Workload:
    train = config.Train(batch_size=256)
    run = config.Run(name=name, data=_data(name), model=_model(name), train=train)
    return Workload(f"inference-{name}", "inference", run, ("torch",), 4, 39)


def _data(model: str) -> config.Data:
    return _CIFAR10 if model.startswith("resnet") else _MNIST


def _model(name: str) -> config.Model:
    return config.Model(name=name, stem="small" if name == "resnet18" else None)


_MNIST = config.Data(name="mnist", validation_fraction=0.0, normalization="unit")
_CIFAR10 = config.Data(name="cifar10", validation_fraction=0.0)
_KERAS_CNN = config.Model(name="keras_cnn")
_RESNET8 = config.Model(name="resnet8", norm="group")

WORKLOADS = (
    _federated("W1", _MNIST, config.Model(name="fedavg_cnn"), cohorts(100, 10, 10), 1),
    _federated("W2", _MNIST, _KERAS_CNN, cohorts(100, 10, 32), 5),
    _federated("W3", _MNIST, _KERAS_CNN, cohorts(1000, 100, 20), 4),
    _federated("W4", _CIFAR10, _RESNET8, cohorts(50, 5, 32), 1),
    _central("keras_cnn", 32, 1875, "keras"),
    _central("keras_cnn", 128, 469, "keras"),
    _central("resnet8", 32, 400),
    _central("resnet20", 32, 200),
    _central("resnet20", 128, 50),
    _central("resnet18", 128, 6),
    # As Opacus draws them by default: batches and noise by a seed.
    _private("dp-sgd", "reproducible", "opacus"),
    _private("dp-sgd-secure", "secure"),
    _inference("keras_cnn"),
    _inference("resnet8"),
    # Too small to measure anything by: whether a peer's environment works at all.
    _federated("smoke", _MNIST, _KERAS_CNN, cohorts(1000, 4, 20), 1),
    _central("keras_cnn", 32, 4, "keras")._replace(name="smoke-central"),
)
SPECIAL: dict[str, tuple[str, ...]] = {
    "cold-start": ("torch", "keras"),
    "clients": (),
    "roofline": (),
    "secure-aggregation": ("secaggplus",),
    "secure-aggregation-dropouts": ("secaggplus",),
    "secure-aggregation-large": (),
}

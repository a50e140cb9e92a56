"""What a run may reveal about those it learned from, in numbers where there are any."""

from collections.abc import Mapping

from lepton_jax.config import Clip, Privacy
from lepton_jax.report import blocks
from lepton_jax.report.blocks import Block, Plot, Points, Prose, Section, Tile, Tiles
from lepton_jax.report.files import RunFiles

_EARLIER = "Earlier runs on the same data, such as those that chose the config: epsilons add up."


def privacy(files: RunFiles, svgs: Mapping[str, str]) -> list[Section]:
    """The section on privacy; none of a run in one place that promises nothing."""
    federated = files.config.federated
    if files.kind == "train":
        settings = files.config.train.privacy
        return [] if settings is None else [_section(_of_examples(files, settings, svgs))]
    if federated.example_privacy is not None:
        return [_section(_of_examples(files, federated.example_privacy, svgs))]
    return [_section([_unprotected()] if federated.noise is None else _of_clients(files, svgs))]


def _section(content: list[Block]) -> Section:
    return Section("privacy", "Privacy", tuple(content))


def _unprotected() -> Prose:
    return Prose(
        "No noise was added: there is no epsilon. Examples stay where they are, yet updates and "
        "the model itself can reveal what a client holds; set federated.noise to bound that."
    )


def _of_clients(files: RunFiles, svgs: Mapping[str, str]) -> list[Block]:
    federated = files.config.federated
    clip = next((stage for stage in federated.stages if isinstance(stage, Clip)), None)
    rate = federated.clients_per_round / federated.clients
    tiles = [
        *_spent(files, federated.delta),
        *_noise(files, federated.noise.multiplier if federated.noise else None),
    ]
    if clip:
        tiles.append(Tile("Clip norm", f"{clip.max_norm:g}", "L2 of a client's update"))
    tiles.append(Tile("Sampling", f"{rate:.4g}", f"chance a round; {federated.sampling}"))
    guarantee = _guarantee("each client", "all of one client's examples")
    uncovered = (
        "Who took part in a round: whoever knows that sees more than epsilon allows.",
        "Figures here that were taken from clients without noise: training loss and accuracy, "
        "clients, examples and bytes of each round, each client's and region's accuracy, what each "
        "client holds. Share this page with people who may know those.",
        *_stamps(files, federated.randomness),
        _EARLIER,
    )
    return [guarantee, Tiles(tuple(tiles)), *_plot(files, svgs), _uncovered(uncovered)]


def _of_examples(files: RunFiles, settings: Privacy, svgs: Mapping[str, str]) -> list[Block]:
    size = files.config.train.batch_size
    expected = size if files.kind == "train" else files.config.federated.batch_size
    tiles = [
        *_spent(files, settings.delta),
        *_noise(files, settings.noise_multiplier),
        Tile("Clip norm", f"{settings.clip_norm:g}", "L2 of an example's gradient"),
        Tile("Batch size", f"{expected}", "expected; Poisson sampling"),
    ]
    guarantee = _guarantee("each training example", "one of them")
    uncovered = (
        "Which examples were in a batch: whoever knows that sees more than epsilon allows.",
        "Figures here that were taken without noise: loss and accuracy on the training examples. "
        "Share this page with people who may know those.",
        "The validation and test examples, and what was chosen by their figures.",
        *_stamps(files, settings.randomness),
        _EARLIER,
    )
    return [guarantee, Tiles(tuple(tiles)), *_plot(files, svgs), _uncovered(uncovered)]


def _stamps(files: RunFiles, randomness: str) -> tuple[str, ...]:
    """What makes an epsilon one for experiments alone."""
    stamps = []
    if randomness == "reproducible":
        stamps.append(
            "Reproducible noise, not for release: whoever knows the seed takes the noise off again."
        )
    if files.kind == "simulate" and files.config.federated.hypothetical is not None:
        stamps.append("Every epsilon is hypothetical: the noise is meant for a larger federation.")
    return tuple(stamps)


def _guarantee(whose: str, what: str) -> Prose:
    return Prose(
        f"The sequence of models is (epsilon, delta)-differentially private for {whose}: with or "
        f"without {what}, no outcome's probability changes by more than a factor of exp(epsilon), "
        "but for a probability of delta."
    )


def _spent(files: RunFiles, delta: float) -> list[Tile]:
    noised = [record.epsilon for record in files.records if record.epsilon is not None]
    spent = files.result.epsilon if files.result else (noised[-1] if noised else None)
    return [
        Tile(
            _epsilon(files), blocks.number(spent), f"after {blocks.plural(len(noised), files.unit)}"
        ),
        Tile("Delta", f"{delta:g}", "the chance that epsilon fails"),
    ]


def _epsilon(files: RunFiles) -> str:
    hypothetical = files.kind == "simulate" and files.config.federated.hypothetical is not None
    return "Epsilon (hypothetical)" if hypothetical else "Epsilon"


def _noise(files: RunFiles, asked: float | None) -> list[Tile]:
    """The noise that was asked for or, where only a budget was, that it needed."""
    found = files.result.noise_multiplier if files.result else None
    multiplier = asked if asked is not None else found
    if multiplier is None:
        return []
    return [Tile("Noise multiplier", f"{multiplier:.4g}", "deviation / clip norm")]


def _plot(files: RunFiles, svgs: Mapping[str, str]) -> list[Plot]:
    if "epsilon" not in svgs:
        return []
    alt = f"epsilon by {files.unit}; the last is the whole run's"
    return [Plot("epsilon", svgs["epsilon"], f"Epsilon over {files.unit}s", alt, narrow=True)]


def _uncovered(items: tuple[str, ...]) -> Points:
    return Points("What epsilon does not cover", items)

"""What a run may reveal about those it learned from, in numbers where there are any."""

from collections.abc import Mapping

from lepton_jax.config import Clip
from lepton_jax.report import blocks
from lepton_jax.report.blocks import Block, Plot, Points, Prose, Section, Tile, Tiles
from lepton_jax.report.files import RunFiles

_EVERYWHERE = (
    "Earlier runs on the same data, such as those that chose the config: epsilons add up.",
    "Noise drawn in floating point, which has fewer values than the proof assumes.",
)


def privacy(files: RunFiles, svgs: Mapping[str, str]) -> list[Section]:
    """The section on privacy; none of a run in one place that promises nothing."""
    if files.kind == "simulate":
        noised = files.config.federated.noise is not None
        return [_section(_of_clients(files, svgs) if noised else [_unprotected()])]
    if files.config.train.privacy is None:
        return []
    return [_section(_of_examples(files, svgs))]


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
    tiles = _spent(files, federated.delta)
    if federated.noise:
        tiles.append(_noise(federated.noise.multiplier))
    if clip:
        tiles.append(Tile("Clip norm", f"{clip.max_norm:g}", "L2 of a client's update"))
    tiles.append(Tile("Sampling", f"{rate:.4g}", f"chance a round; {federated.sampling}"))
    guarantee = _guarantee("each client", "all of one client's examples")
    uncovered = (
        "Who took part in a round, and the seed: whoever knows them sees more than epsilon allows.",
        "Figures here that were taken from clients without noise: training loss and accuracy, "
        "clients, examples and bytes of each round, each client's and region's accuracy, what each "
        "client holds. Share this page with people who may know those.",
        *_EVERYWHERE,
    )
    return [guarantee, Tiles(tuple(tiles)), *_plot(files, svgs), _uncovered(uncovered)]


def _of_examples(files: RunFiles, svgs: Mapping[str, str]) -> list[Block]:
    settings = files.config.train.privacy
    assert settings is not None
    tiles = [
        *_spent(files, settings.delta),
        _noise(settings.noise_multiplier),
        Tile("Clip norm", f"{settings.clip_norm:g}", "L2 of an example's gradient"),
        Tile("Batch size", f"{files.config.train.batch_size:,}", "expected; Poisson sampling"),
    ]
    guarantee = _guarantee("each training example", "one of them")
    uncovered = (
        "Which examples were in a batch, and the seed: whoever knows them sees more than epsilon "
        "allows.",
        "Figures here that were taken without noise: loss and accuracy on the training examples. "
        "Share this page with people who may know those.",
        "The validation and test examples, and what was chosen by their figures.",
        *_EVERYWHERE,
    )
    return [guarantee, Tiles(tuple(tiles)), *_plot(files, svgs), _uncovered(uncovered)]


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
        Tile("Epsilon", blocks.number(spent), f"after {blocks.plural(len(noised), files.unit)}"),
        Tile("Delta", f"{delta:g}", "the chance that epsilon fails"),
    ]


def _noise(multiplier: float) -> Tile:
    return Tile("Noise multiplier", f"{multiplier:g}", "deviation / clip norm")


def _plot(files: RunFiles, svgs: Mapping[str, str]) -> list[Plot]:
    if "epsilon" not in svgs:
        return []
    alt = f"epsilon by {files.unit}; the last is the whole run's"
    return [Plot("epsilon", svgs["epsilon"], f"Epsilon over {files.unit}s", alt, narrow=True)]


def _uncovered(items: tuple[str, ...]) -> Points:
    return Points("What epsilon does not cover", items)

"""The section on phone models: what they keep of JAX' accuracy, what they cost, what they passed."""

from lepton_jax.report import blocks
from lepton_jax.report.blocks import MISSING, Block, Cell, Points, Prose, Section, Table
from lepton_jax.report.contents import Export, GroupFigures, Phone, Setting, Variant
from lepton_jax.report.files import RunFiles

_CALIBRATED = ("int8", "int8-qat", "16x8")
_EXACT = 1e-4  # of accuracy: a hundredth of a point


def section(files: RunFiles) -> list[Section]:
    """The exported models, compared with JAX on the whole test split."""
    if not files.export:
        return []
    export = files.export
    parts: list[Block] = [Prose(_lead(export)), *map(Prose, _warnings(export))]
    parts += [_variants(export), *_tuned(export), *_taken(export)]
    parts += [*_regions(files), *_gates(export), *_latency(export), *_work(export)]
    return [Section("phone", "On the phone", (*parts, *_times(export), _ops(export)))]


def gates(variant: Variant) -> str:
    """How many gates a model passed, and whether it was kept all the same."""
    if not variant.gates:
        return MISSING
    told = f"{sum(gate.passed for gate in variant.gates)} of {len(variant.gates)}"
    return f"{told}, kept" if variant.overridden else told


def worst_loss(variant: Variant) -> str:
    """Points of accuracy that the region loses that loses most, and its name."""
    worst = variant.groups.worst_region if variant.groups else None
    return MISSING if worst is None else f"{_points(worst.loss)} ({worst.name})"


# --- in words -------------------------------------------------------------------------------------


def _lead(export: Export) -> str:
    shape = " x ".join("any" if side == -1 else str(side) for side in export.input.shape)
    converted = f", converted by {export.converter}," if export.converter else ""
    lead = (
        f"TFLite models{converted} that take {export.input.dtype} images [{shape}], normalization "
        "inside, and were checked against JAX image by image on the test split. Latency is that of "
        "one run on one thread of the machine that exported."
    )
    told = list(dict.fromkeys(blocks.percent(each.jax_accuracy) for each in export.variants))
    lead += f" JAX itself has an accuracy of {' and '.join(told)}." if told else ""
    calibrated = [each.name for each in export.variants if each.name in _CALIBRATED]
    if export.calibration and calibrated:
        images = blocks.plural(export.calibration.images, "image")
        names = " and ".join(calibrated)
        lead += (
            f" The ranges of {names} come from {images} of the {export.calibration.split} split."
        )
    if any(each.pareto is not None for each in export.variants):
        lead += " On the Pareto front is what no other model beats in size, latency and accuracy."
    if any(each.groups and each.groups.worst_region for each in export.variants):
        lead += " Of the regions the one is named whose accuracy falls most, with the points."
    return lead


def _warnings(export: Export) -> list[str]:
    told = []
    for each in export.variants:
        if each.gates:
            told += [
                f"{each.name} fails the gate {gate.name} and was kept all the same: "
                f"{gate.found}; the limit is {gate.limit}."
                for gate in each.gates
                if not gate.passed
            ]
        elif not each.within_tolerance:
            told.append(f"{each.name} is more than a point less accurate than JAX.")
    return told


def _taken(export: Export) -> list[Points]:
    """Which ops XNNPACK left to slower kernels."""
    items = []
    for each in export.variants:
        if each.phone and each.phone.delegate.left:
            left = ", ".join(f"{count} {op}" for op, count in each.phone.delegate.left.items())
            parts = blocks.plural(each.phone.delegate.parts, "part")
            items.append(f"{each.name}: {left}; it takes the rest in {parts}")
    title = "What XNNPACK, the CPU's delegate, leaves to slower kernels"
    return [Points(title, tuple(items))] if items else []


def _tuned(export: Export) -> list[Points]:
    """What training on with rounded numbers won, or why there was none."""
    items = []
    for each in export.variants:
        if (tuned := each.fine_tuning) is None:
            continue
        told = f"{each.name}: rounding changed the loss by {tuned.cost:+.4f}, give or take "
        told += f"{tuned.cost_error:.4f}, on {blocks.plural(tuned.images, 'image')}"
        if tuned.loss_after is None:
            told += "; that is chance, and nothing was trained"
        else:
            told += (
                f"; {blocks.plural(tuned.steps, 'step')} brought it from {tuned.loss_before:.4f}"
            )
            told += f" to {tuned.loss_after:.4f}, and were {'kept' if tuned.kept else 'dropped'}"
        items.append(told)
    return [Points("Trained on with rounded numbers", tuple(items))] if items else []


def _points(share: float) -> str:
    """Points of accuracy lost; what is gained has a plus, as a gain is no loss.

    >>> _points(0.0123), _points(-0.002), _points(0.0)
    ('-1.23', '+0.20', '0.00')
    """
    return f"{-share * 100:+.2f}" if abs(share) >= _EXACT / 2 else "0.00"


# --- tables ---------------------------------------------------------------------------------------


def _variants(export: Export) -> Table:
    rated = any(each.gates for each in export.variants)
    grouped = any(each.groups and each.groups.worst_region for each in export.variants)
    header = ["model", "size", "accuracy", "same answer"]
    header += ["worst region"] if grouped else []
    header += ["latency", "95%", *(["Pareto", "gates"] if rated else [])]

    def row(each: Variant) -> tuple[Cell, ...]:
        cells = [each.name, blocks.size(each.bytes), blocks.percent(each.accuracy)]
        cells += [blocks.percent(each.top1_agreement)]
        cells += [worst_loss(each)] if grouped else []
        cells += [f"{each.latency_ms.median:.3f} ms", f"{each.latency_ms.p95:.3f} ms"]
        cells += ["yes" if each.pareto else MISSING, gates(each)] if rated else []
        return tuple(cells)

    return Table("Phone models", tuple(header), tuple(row(each) for each in export.variants))


def _regions(files: RunFiles) -> list[Block]:
    if not files.export:
        return []
    rows = [
        _group(each.name, region, figures)
        for each in files.export.variants
        if each.groups
        for region, figures in each.groups.regions.items()
    ]
    rows += [
        _group(each.name, f"client {worst.name}, the worst", worst)
        for each in files.export.variants
        if each.groups and (worst := each.groups.worst_client)
    ]
    if not rows:
        return []
    data = {each.groups.data for each in files.export.variants if each.groups}
    noised = bool(files.result and files.result.epsilon is not None)
    lead = f"By region they were compared on the {' and '.join(sorted(data))} examples of clients."
    lead += " What that tells of their data is covered by no epsilon." if noised else ""
    header = ("model", "of", "images", "accuracy", "JAX", "points", "same answer")
    return [Prose(lead), Table("By region", header, tuple(rows), texts=2, fold=True)]


def _group(name: str, of: str, each: GroupFigures) -> tuple[Cell, ...]:
    shares = (blocks.percent(each.accuracy), blocks.percent(each.jax_accuracy))
    return (
        name,
        of,
        f"{each.images:,}",
        *shares,
        _points(each.loss),
        blocks.percent(each.agreement),
    )


def _gates(export: Export) -> list[Table]:
    rows = tuple(
        (each.name, gate.name, gate.found, gate.limit, "yes" if gate.passed else "no")
        for each in export.variants
        for gate in each.gates
    )
    header = ("model", "gate", "found", "limit", "passed")
    return [Table("Gates", header, rows, texts=5, fold=True)] if rows else []


def _phones(export: Export) -> list[tuple[str, Phone]]:
    return [(each.name, each.phone) for each in export.variants if each.phone]


def _latency(export: Export) -> list[Table]:
    def row(name: str, each: Setting) -> tuple[Cell, ...]:
        times = (f"{ms:.3f} ms" for ms in (each.min_ms, each.median_ms, each.p95_ms))
        on = "on" if each.xnnpack else "off"
        return (name, on, str(each.threads), *times, f"{each.runs:,}")

    rows = tuple(row(name, each) for name, phone in _phones(export) for each in phone.latency)
    header = ("model", "XNNPACK", "threads", "least", "median", "95%", "runs")
    caption = "Latency by threads, with XNNPACK and without"
    return [Table(caption, header, rows, texts=2, fold=True)] if rows else []


def _work(export: Export) -> list[Table]:
    rows = tuple(
        (
            each.name,
            f"{phone.multiply_adds:,}",
            blocks.size(phone.bytes_moved),
            f"{phone.first_run_ms:.1f} ms",
            blocks.size(phone.memory_bytes),
            blocks.size(phone.runtime_bytes),
            f"{each.max_abs_diff:.1e}",
            MISSING if each.logit_diff is None else f"{each.logit_diff:.1e}",
        )
        for each in export.variants
        if (phone := each.phone)
    )
    work = ("model", "multiply-adds", "bytes moved", "first run", "memory", "LiteRT's own")
    header = (*work, "difference", "of logits")
    return [Table("Work, memory and exactness", header, rows, fold=True)] if rows else []


def _times(export: Export) -> list[Table]:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            each.op,
            str(each.count),
            blocks.rated(each.share),
            f"{each.multiply_adds:,}",
            blocks.size(each.bytes_moved),
        )
        for name, phone in _phones(export)
        for each in phone.ops
    ]
    header = ("model", "operation", "count", "share of time", "multiply-adds", "bytes moved")
    caption = "Time by operation, each timed alone"
    return [Table(caption, header, tuple(rows), texts=2, fold=True)] if rows else []


def _ops(export: Export) -> Table:
    names = sorted({op for each in export.variants for op in each.ops})
    rows = [
        (op, *(str(each.ops.get(op, 0) or MISSING) for each in export.variants)) for op in names
    ]
    rows.append(("all", *(str(sum(each.ops.values())) for each in export.variants)))
    header = ("operation", *(each.name for each in export.variants))
    return Table("Operations in each model", header, tuple(rows), fold=True)

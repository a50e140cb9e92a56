"""The picture of an inversion: what clients hold, and what an attacker makes of their updates."""

from federated.privacy.audits.inversion import Inversion
from lepton_jax.checks import UserError


def check_drawing() -> None:
    """Refuses, before anything else takes time, what can't be drawn.

    Raises:
      UserError: the extra `report` isn't installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            "audit's picture", "matplotlib", str(error), "pip install 'lepton-jax[report]'"
        ) from error


def picture(found: Inversion) -> bytes:
    """A PNG with a row for the images and for each way to see their updates, a column a client."""
    from lepton_jax.report import style

    rows = {
        "held by a client": (found.original, None),
        "its own update": (found.plain, found.decibels["plain"]),
        "mean of the cohort": (found.aggregated, found.decibels["aggregated"]),
        "clipped, noised": (found.noised, found.decibels["noised"]),
    }

    @style.styled
    def draw() -> bytes:
        columns = len(found.original)
        made = style.figure(1.2 * columns + 1.4, 1.3 * len(rows))
        axes = made.subplots(len(rows), columns, squeeze=False)
        for line, (name, (images, decibels)) in zip(axes, rows.items(), strict=True):
            for column, (axis, image) in enumerate(zip(line, images, strict=True)):
                grey = image.shape[-1] == 1
                axis.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(False)
                if decibels is not None:
                    axis.set_xlabel(f"{decibels[column]:.0f} dB")
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        return style.png(made)

    return draw()

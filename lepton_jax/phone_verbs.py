"""The verbs of phone models: `lepton export` writes and verifies them, `lepton inspect` reads one."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lepton_jax import console
from lepton_jax.arguments import Folder, Json, Set

Quantize = Annotated[tuple[str, ...], arg(help="variants such as int8, or all", metavar="NAME ...")]
Signatures = Annotated[
    str | None, arg(name="signatures", help="such as infer,train", metavar="NAMES")
]
Web = Annotated[Path | None, arg(help="write a page for browsers there", metavar="DIR")]
Verify = Annotated[bool, arg(help="check the signed files, write nothing")]
PublicKey = Annotated[str | None, arg(help="the signer's, if not yours", metavar="HEX")]
Override = Annotated[bool, arg(help="keep models that fail a gate")]


def export(
    run: Positional[Folder],
    /,
    quantize: Quantize = (),
    signatures: Signatures = None,
    set_: Set = (),
    web: Web = None,
    override: Override = False,
    verify: Verify = False,
    public_key: PublicKey = None,
    json: Json = False,
) -> None:
    """Write a run as TFLite models, checked against JAX and signed.

    Example: lepton export runs/digits_central --quantize all
    """
    if verify:
        _verify(run, public_key, json)
        return
    from lepton_jax.startup import start_jax

    start_jax()
    from federated.groups import groups_of
    from lepton_jax.export import export as exporting

    overrides = (*set_, *_signatures(signatures))
    if web is not None:
        _check_page(run, web, overrides)
    figures = exporting(
        run,
        variants=quantize or None,
        overrides=overrides,
        groups=groups_of,
        override=override,
    )
    lines = [console.phone_table(figures)]
    if web is not None:
        from lepton_jax.export.web import write_run_page

        write_run_page(run, web)
        lines.append(f"wrote {web}: python3 -m http.server --directory {web}")
    console.say(console.phone_figures(run, figures), json, "\n".join(lines))


def inspect(
    model: Positional[Annotated[Path, arg(help="a .tflite file", metavar="FILE")]],
    /,
    json: Json = False,
) -> None:
    """Tell what a phone model takes, gives and says of itself; it may be anyone's.

    Example: lepton inspect runs/digits_central/int8.tflite
    """
    from lepton_jax.export import inspect as inspecting

    figures = inspecting(model)
    console.say(figures, json, console.listing(figures))


def _check_page(run: Path, web: Path, overrides: tuple[str, ...]) -> None:
    from lepton_jax.export.settings import settled
    from lepton_jax.export.web import check_run_page
    from lepton_jax.training import load_run

    check_run_page(settled(load_run(run), overrides).config.export, web)


def _signatures(names: str | None) -> tuple[str, ...]:
    """The override that a list of names means."""
    if names is None:
        return ()
    quoted = ", ".join(f'"{name.strip()}"' for name in names.split(","))
    return (f"export.signatures=[{quoted}]",)


def _verify(run: Path, public_key: str | None, json: bool) -> None:
    from lepton_jax.export import verify_files
    from lepton_jax.training.verify import public_key_of

    key = None if public_key is None else public_key_of(public_key)
    found = verify_files(run, public_key=key)
    rows = [
        {
            "file": each.file,
            "bytes": each.bytes,
            "sha256": each.sha256,
            "signed_by": each.public_key,
        }
        for each in found
    ]
    short = {"sha256", "signed_by"}
    shown = [
        {key: str(value)[:16] if key in short else value for key, value in row.items()}
        for row in rows
    ]
    console.say({"run": str(run), "files": rows}, json, console.table(shown))

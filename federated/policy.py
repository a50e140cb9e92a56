"""What may leave a region: one TOML file each, read and validated before anything runs.

What a policy doesn't name doesn't leave. Its epsilon and delta are for whichever guarantee the run
gives, of each client or of each example. What holds a run to it is `federated.egress`.
"""

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from lepton_jax import config
from lepton_jax.checks import UserError, suggestion
from lepton_jax.config_files import bundled, convert

Output = Literal["update", "figures"]
Figure = Literal[
    "loss", "accuracy", "top5_accuracy", "precision_macro", "precision_micro", "recall_macro",
    "recall_micro", "f1_macro", "f1_micro", "per_class", "confusion", "examples", "clients",
    "labels",
]  # fmt: skip

_MOST_BYTES, _MOST_DOTS = 64 * 2**10, 200
_TAG = re.compile(  # RFC 5646 (Phillips and Davis, 2009), without the irregular tags of old
    r"(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})"  # language
    r"(?:-[a-z]{4})?(?:-(?:[a-z]{2}|[0-9]{3}))?"  # script, region
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"(?:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*(?:-x(?:-[a-z0-9]{1,8})+)?",  # extensions, private use
    re.IGNORECASE | re.ASCII,
)


class Policy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may leave one region, and on what terms."""

    region: config.Name
    """As the run names it, and the file."""
    language: Annotated[str, Meta(max_length=64)]
    """Of the labels: a BCP 47 tag, such as `en`, `sw-KE` or `zh-Hant`."""
    outputs: tuple[Output, ...]
    """What may leave at all: updates of the model, figures, both or neither."""
    cross_border: Literal["none", "sum", "updates"]
    """Of updates: nothing, only the sum over the region's cohort, or each client's."""
    metrics: tuple[Figure, ...] = ()
    """Which figures."""
    minimum_cohort: config.Count
    """The least number of clients behind anything that leaves; how it is checked: `egress.rules`."""
    epsilon: config.Positive | None = None
    """The most that may be spent on this region's data; the region stops before a round that
    would spend more."""
    delta: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """The largest at which epsilon may be told."""
    retention_days: config.Count
    """How long what has left may be kept."""

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.language):
            raise _explained("language", "a BCP 47 tag such as en, sw-KE or zh-Hant", self.language)
        for name in ("outputs", "metrics"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise _explained(name, "each value once", list(values))
        named = f"with outputs = {list(self.outputs)}"
        if ("update" in self.outputs) != (self.cross_border != "none"):
            wanted = "'sum' or 'updates'" if "update" in self.outputs else "'none'"
            raise _explained("cross_border", f"{wanted} {named}", self.cross_border)
        if ("figures" in self.outputs) != bool(self.metrics):
            wanted = "at least one" if "figures" in self.outputs else "none"
            raise _explained("metrics", f"{wanted} {named}", list(self.metrics))
        if self.cross_border == "sum" and self.minimum_cohort < 2:
            wanted = "at least 2 with cross_border = 'sum', as a sum over one client is its update"
            raise _explained("minimum_cohort", wanted, self.minimum_cohort)
        if (self.epsilon is None) != (self.delta is None):
            raise _explained("delta", "both epsilon and delta or neither", "one of them")


def _explained(field: str, expected: str, got: Any) -> ValueError:
    return ValueError(f"{field}: expected {expected}, got {got!r:.200}")


# --- files ----------------------------------------------------------------------------------------


def load_policies(folder: Path, regions: Sequence[str]) -> dict[str, Policy]:
    """Reads the policies of a run: one file `REGION.toml` for each of its regions, and no other.

    Args:
      folder: of the policies; files that don't end in `.toml` are passed over.
      regions: the names of the run's regions.

    Returns:
      The policies by region, in the order of `regions`.

    Raises:
      UserError: a region without a policy, a policy without a region, or as `read_policies`.
    """
    folder = _find(folder)
    found = read_policies(folder)
    for name in found:
        if name not in regions:
            remedy = suggestion(name, regions, "remove the file, or name the region in the config")
            expected = f"a policy of one of {', '.join(regions)}"
            raise UserError(str(folder / f"{name}.toml"), expected, f"one of {name}", remedy)
    for name in regions:
        if name not in found:
            where, remedy = str(folder / f"{name}.toml"), "write what may leave this region"
            raise UserError(where, f"the policy of region {name}", "no such file", remedy)
    return {name: found[name] for name in regions}


def read_policies(path: Path) -> dict[str, Policy]:
    """Reads one policy, or all those of a folder.

    Args:
      path: a TOML file, or a folder of them; where nothing is there, a bundled one: `policies`.

    Returns:
      The policies by region, in the order of their names.

    Raises:
      UserError: nothing there, a file that is no policy, larger than 64 KiB, or a link out of its
        folder, a policy of another region than its file is named after; one line.
    """
    path = _find(path)
    try:
        files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        policies = [_read(file) for file in files]
    except OSError as error:
        raise UserError(str(path), "readable policies", error.strerror or "an error") from error
    if not policies:
        raise UserError(str(path), "at least one policy, REGION.toml", "none")
    return {policy.region: policy for policy in policies}


def _find(path: Path) -> Path:
    if os.path.lexists(path):
        return path
    inside = next((config.parent / path for config in bundled().values()), path)
    return inside if inside.is_dir() else path


def _read(path: Path) -> Policy:
    where, target = str(path), Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(path.parent)):
        raise UserError(where, "a file of its folder", "a link out of it", "copy the file here")
    if not target.is_file():  # a pipe would never end
        raise UserError(where, "a file", "something else" if target.exists() else "nothing")
    with target.open("rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise UserError(where, "a policy of at most 64 KiB", "a larger file")
    deep = UserError(where, "a policy's few keys", "tables deep in each other")
    if any(line.count(b".") > _MOST_DOTS for line in raw.splitlines() if line[:1] != b"#"):
        raise deep  # the time to read a dotted key grows with the square of its length
    try:
        policy = convert(tomllib.loads(raw.decode()), Policy, where)
    except RecursionError:
        raise deep from None
    except ValueError as error:  # not TOML, not UTF-8, a number of thousands of digits
        raise UserError(where, "a TOML file", str(error)) from error
    if policy.region != path.stem:
        remedy = f"rename the file to {policy.region}.toml, or mend `region`"
        raise UserError(f"{where}: region", repr(path.stem), repr(policy.region), remedy)
    return policy

"""partition.json read back: whoever wrote it, what comes out is a partition or one line of refusal."""

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from federated.shards import verify_manifest
from lepton_jax.untrusted import convert, read_json

_Index = Annotated[int, Meta(ge=0, le=2**53)]


class _Held(Struct, forbid_unknown_fields=True):
    client: _Index
    region: str
    examples: list[_Index]
    holdout: list[_Index]
    labels: list[_Index]


class _Manifest(Struct, forbid_unknown_fields=True):
    version: Literal[1]
    kind: str
    seed: _Index
    clients: list[_Held]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads a partition's manifest and verifies its hash.

    Args:
      path: of a partition.json.

    Returns:
      What `federated.shards.manifest` made.

    Raises:
      UserError: no such file, no JSON of such a manifest, or anything in it was changed.
    """
    manifest = read_json(path)
    convert(manifest, _Manifest, str(path))
    verify_manifest(manifest)
    return manifest

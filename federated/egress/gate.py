"""The gate of a region: nothing leaves but what its policy names, counted, and updates sealed."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from federated.egress.letters import KINDS, About, Sealed, bind, check_round, check_run, sealing
from federated.egress.wire import pack
from federated.policy import Policy
from lepton_jax.checks import UserError

_OF_MANY = {"per_class", "confusion", "labels"}  # figures that are lists or tables


class Passed(NamedTuple):
    """What a gate has let out so far.

    Attributes:
      update: bytes of single clients' updates, as sealed.
      sum: bytes of sums, as sealed.
      figures: bytes of figures, as JSON.
      withheld: the number of figures that were asked for and stayed.
      last: round and part of the newest update.
    """

    update: int = 0
    sum: int = 0
    figures: int = 0
    withheld: int = 0
    last: tuple[int, int] = (-1, -1)

    def to_json(self) -> dict[str, int]:
        """Bytes by kind, and the number of figures withheld."""
        return {name: value for name, value in self._asdict().items() if name != "last"}


class Gate(NamedTuple):
    """A region's gate; state goes in and comes out, and a refusal lets nothing out.

    Attributes:
      release_update: (passed, about, cohort, arrays) -> (passed, sealed). `cohort` is how many
        clients of the region were drawn in the round.
      release_figures: (passed, cohort, figures) -> (passed, those that may leave). `cohort` is how
        many clients the figures are over.
    """

    release_update: Callable[[Passed, About, int, Sequence[np.ndarray]], tuple[Passed, Sealed]]
    release_figures: Callable[[Passed, int, Mapping[str, Any]], tuple[Passed, dict[str, Any]]]


def open_gate(
    policy: Policy,
    run: bytes,
    *,
    key: bytes,
    server: bytes,
    noised: bool,
    random: Callable[[int], bytes] = os.urandom,
) -> Gate:
    """The gate of the policy's region in one run.

    *Guarantee.* What leaves through the gate is: updates of a kind that the policy names, at most
    one sum or one set of updates a round, so that no two sums tell of their difference; and figures
    that it names, each a number or, of `per_class`, `confusion` and `labels`, numbers in lists and
    tables, over no fewer clients than its minimum. An update is sealed: the server alone reads it,
    as this region's, of this run, round and model (`sealing`). It is not covered what the server
    does with it, that sizes and times are seen by whoever carries it, and that with noise for each
    client the number of `update`s tells how many were drawn, which a `sum` doesn't.

    | edge                                               | without noise   | noised                |
    |----------------------------------------------------|-----------------|-----------------------|
    | a kind of update that the policy doesn't name      | UserError       | UserError             |
    | figures where the policy names no output `figures` | UserError       | UserError             |
    | a figure that it doesn't name                      | withheld        | withheld              |
    | an update, cohort below the minimum, even 0        | UserError       | leaves: `rules`       |
    | figures over fewer clients than the minimum        | all withheld    | all withheld          |
    | a second sum, or an earlier round's                | UserError       | UserError             |
    | no figures, no arrays                              | leaves, empty   | leaves, empty         |
    | a named figure that is NaN, infinite, no number    | UserError       | UserError             |
    | NaN or infinity in an update                       | leaves as it is | leaves as it is       |

    Args:
      policy: of the region.
      run: at least 16 bytes, random, used for one run only.
      key: the region's private key, 32 random bytes.
      server: the server's public key.
      noised: the run has noise for each client, and `check_policies` has checked the minimum.
      random: number of bytes -> random bytes; only tests give another than the system's.

    Raises:
      UserError: a run's name too short, no public key, or the extra `privacy` isn't installed.
    """
    where = f"region {policy.region}"
    check_run(run)
    try:
        sealing().seal(b"", b"", key, server, random)
    except ValueError:
        raise UserError(where, "keys of 32 bytes, none of small order", "others") from None

    def release_update(
        passed: Passed, about: About, cohort: int, arrays: Sequence[np.ndarray]
    ) -> tuple[Passed, Sealed]:
        _check_update(policy, passed, about, cohort)
        if not noised:
            _check_cohort(policy, cohort)
        plain = pack(arrays, f"{where}: {about.kind}")
        bound = bind(run, policy.region, about)
        body = sealing().seal(plain, bound, key, server, random)
        size = getattr(passed, about.kind) + len(bound) + len(body)
        passed = passed._replace(**{about.kind: size, "last": (about.round, about.part)})
        return passed, Sealed(run, policy.region, about, body)

    def release_figures(
        passed: Passed, cohort: int, figures: Mapping[str, Any]
    ) -> tuple[Passed, dict[str, Any]]:
        if "figures" not in policy.outputs:
            raise UserError(f"{where}: figures", "none, by its policy", f"{len(figures)} of them")
        allowed = policy.metrics if cohort >= policy.minimum_cohort else ()
        leaving: dict[str, Any] = {name: figures[name] for name in figures if name in allowed}
        for name, value in leaving.items():
            if not _is_figure(value, name in _OF_MANY):
                kind = "finite numbers" if name in _OF_MANY else "one finite number, or None"
                raise UserError(f"{where}: {name}", kind, type(value).__name__)
        size = len(json.dumps(leaving)) if leaving else 0
        withheld = passed.withheld + len(figures) - len(leaving)
        return passed._replace(figures=passed.figures + size, withheld=withheld), leaving

    return Gate(release_update, release_figures)


def _check_update(policy: Policy, passed: Passed, about: About, cohort: int) -> None:
    where = f"region {policy.region}: {about.kind} of round {about.round}"
    allowed = {"none": (), "sum": ("sum",), "updates": KINDS}[policy.cross_border]
    if about.kind not in allowed:
        expected = f"{' or '.join(allowed) or 'no update'}, by its policy"
        raise UserError(where, expected, repr(about.kind), "ask the region, not the gate")
    check_round(where, about.round, about.model_sha256)
    parts = cohort if about.kind == "update" else 1
    if not 0 <= about.part < parts:
        raise UserError(where, f"one of {parts} parts", about.part)
    if passed.last >= (about.round, about.part):
        expected = f"one after part {passed.last[1]} of round {passed.last[0]}"
        raise UserError(where, expected, f"part {about.part} again, or an earlier one")


def _check_cohort(policy: Policy, cohort: int) -> None:
    if cohort < policy.minimum_cohort:
        where = f"region {policy.region}: cohort"
        expected = f"at least {policy.minimum_cohort} clients, by its policy"
        raise UserError(where, expected, cohort, "leave the region out of this round")


def _is_figure(value: Any, many: bool) -> bool:
    """Whether a value tells a figure and nothing else: no text, no arrays, no objects."""
    match value:
        case None:
            return True
        case bool():
            return False
        case int():
            return abs(value) < 2**63
        case float():
            return math.isfinite(value)
        case list() | tuple() if many:
            return all(_is_figure(each, many) for each in value)
        case dict() if many:
            return all(_is_figure(each, many) for each in value.values())
        case _:
            return False

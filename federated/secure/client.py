"""A client's four stages, each a pure transition from one state to the next.

*Guarantee.* What a client sends in a round, its vector apart, doesn't depend on its vector; and the
vector leaves it only under the mask of its own seed and a mask with each neighbour that dealt
shares. Of every neighbour it reveals a share of the seed or of the mask key, never of both, and of
its own it reveals a share of the seed only. It stops before sending anything if fewer than the
threshold of itself and its neighbours are there, or if what came is not what was sent.

This holds if a state is used once: whoever keeps an old state and repeats a stage with other
input sends two vectors under one mask. The last state may be kept; it refuses a second request
that differs from the first.

Bonawitz et al. (2017), with neighbours as Bell et al. (2020).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from federated.secure import shamir
from federated.secure.keys import (
    KEY_BYTES,
    KeyPair,
    Purpose,
    Random,
    agree,
    commit,
    derive,
    key_pair,
    pair_mask,
    seal,
    unseal,
)
from federated.secure.masks import apply_masks, of_pairs
from federated.secure.messages import (
    COHORT,
    SERVER,
    AbortError,
    Advert,
    Answer,
    Deal,
    Inbox,
    Masked,
    Parcel,
    Request,
    Roster,
    check_advert,
    check_context,
    client_name,
)
from federated.secure.plan import Plan, check_member
from lepton_jax.checks import UserError


class Keyed(NamedTuple):
    """After stage 1: key pairs for masks and for sealing, and what was said of them."""

    masking: KeyPair
    sealing: KeyPair
    advert: Advert


class Dealt(NamedTuple):
    """After stage 2: what the client agreed on with each neighbour, its seed and its own share."""

    keyed: Keyed
    adverts: dict[int, Advert]
    secrets: dict[int, bytes]
    seed: bytes
    own_share: bytes


class Ready(NamedTuple):
    """After stage 3: shares of others' secrets and of its own seed; the request, once answered."""

    client: int
    seeds: dict[int, bytes]
    keys: dict[int, bytes]
    answered: Request | None


def advertise(plan: Plan, client: int, random: Random) -> tuple[Keyed, Advert]:
    """Stage 1: draws fresh keys, for this round only.

    Raises:
      AbortError: the client isn't in the plan.
    """
    check_member(plan, client, "public keys")
    masking, sealing = key_pair(random(KEY_BYTES)), key_pair(random(KEY_BYTES))
    advert = Advert(plan.context, client, masking.public, sealing.public)
    return Keyed(masking, sealing, advert), advert


def share(plan: Plan, state: Keyed, roster: Roster, random: Random) -> tuple[Dealt, Deal]:
    """Stage 2: deals a fresh seed and the mask key to the neighbours that are there.

    Args:
      plan: the round's terms.
      state: after stage 1.
      roster: the neighbours' public keys.
      random: where seed, polynomials and nonces come from.

    Raises:
      AbortError: a key is not its owner's own, a client is no neighbour, or too few are there.
    """
    me, context = state.advert.client, plan.context
    check_context(context, roster.context, SERVER, "roster")
    _check_present(plan, me, roster.adverts)
    seen = {me: state.advert}
    for other, advert in roster.adverts.items():
        if advert.client != other:
            raise AbortError(SERVER, "roster", f"keys of {client_name(other)}", "another's")
        check_advert(context, advert, seen)
        seen[other] = advert
    seed, others = random(KEY_BYTES), sorted(roster.adverts)
    seeds = _deal(seed, [me, *others], plan.threshold, random)
    # The dealer's own share of its key would serve nobody: a key is asked for when it is gone.
    raw_key = state.masking.private.private_bytes_raw()
    keys = _deal(raw_key, [me, *others], plan.threshold, random)
    secrets = {j: agree(state.sealing, roster.adverts[j].seal_key, j) for j in others}
    sealed = {
        j: seal(secrets[j], seeds[j] + keys[j], state.advert, roster.adverts[j], random)
        for j in others
    }
    deal = Deal(
        context,
        me,
        commit(seed, context, "seed", me),
        {j: commit(x, context, "seed share", me, j) for j, x in seeds.items()},
        {j: commit(keys[j], context, "key share", me, j) for j in others},
        sealed,
    )
    return Dealt(state, roster.adverts, secrets, seed, seeds[me]), deal


def mask(plan: Plan, state: Dealt, inbox: Inbox, vector: np.ndarray) -> tuple[Ready, Masked]:
    """Stage 3: checks the shares it was dealt, and sends its vector under all masks.

    Args:
      plan: the round's terms.
      state: after stage 2.
      inbox: what the neighbours dealt.
      vector: [D] of uint32; it stays as it is.

    Raises:
      UserError: the vector isn't [D] of uint32.
      AbortError: a seal doesn't open, a share isn't the committed one, or too few have dealt.
    """
    me, context = state.keyed.advert.client, plan.context
    if vector.dtype != np.uint32 or vector.shape != (plan.dimension,):
        raise UserError(
            "secure aggregation: vector",
            f"uint32 of shape [{plan.dimension}]",
            f"{vector.dtype} of shape {list(vector.shape)}",
        )
    check_context(context, inbox.context, SERVER, "inbox")
    _check_present(plan, me, inbox.parcels)
    if not inbox.parcels.keys() <= state.adverts.keys():
        raise AbortError(SERVER, "inbox", "shares of those on the roster", "shares of another")
    seeds: dict[int, bytes] = {me: state.own_share}
    keys: dict[int, bytes] = {}
    for dealer, parcel in inbox.parcels.items():
        seeds[dealer], keys[dealer] = _open(state, dealer, parcel)
    pair_keys = {
        other: pair_mask(state.keyed.masking, me, state.adverts[other]) for other in inbox.parcels
    }
    added, subtracted = of_pairs(me, pair_keys)
    masked = vector.copy()
    apply_masks(masked, [derive(state.seed, context, "self mask", me, me), *added], subtracted)
    return Ready(me, seeds, keys, None), Masked(context, me, masked)


def answer(plan: Plan, state: Ready, request: Request) -> tuple[Ready, Answer]:
    """Stage 4: reveals a share of each survivor's seed and of each dropout's mask key.

    Args:
      plan: the round's terms.
      state: after stage 3, or after this one: the same request has the same answer.
      request: who sent a masked vector and who did not, as the server says.

    Raises:
      AbortError: the server asks for both secrets of a client, for those of a stranger, for this
        client's own key or for other shares than before; or there are too few survivors.
    """
    me = state.client
    check_context(plan.context, request.context, SERVER, "request")
    if state.answered not in (None, request):
        raise AbortError(SERVER, "request", "the one that was answered", "a second, different one")
    if request.survivors & request.dropouts:
        raise AbortError(SERVER, "request", "one secret of each client", "both of one")
    if request.survivors | request.dropouts != state.seeds.keys():
        raise AbortError(
            SERVER, "request", "all of those that dealt shares, and no other", "others"
        )
    if me not in request.survivors:
        raise AbortError(SERVER, "request", f"{client_name(me)} among the survivors", "not so")
    if len(request.survivors) < plan.threshold:
        raise AbortError(
            COHORT, "request", f"at least {plan.threshold} survivors", len(request.survivors)
        )
    revealed = Answer(
        plan.context,
        me,
        {i: state.seeds[i] for i in sorted(request.survivors)},
        {i: state.keys[i] for i in sorted(request.dropouts)},
    )
    return state._replace(answered=request), revealed


def _check_present(plan: Plan, me: int, others: Iterable[int]) -> None:
    present = set(others)
    if not present <= set(plan.neighbours[me]):
        raise AbortError(
            SERVER, f"message to {client_name(me)}", "neighbours only", "another client"
        )
    if len(present) + 1 < plan.threshold:
        raise AbortError(
            COHORT,
            f"message to {client_name(me)}",
            f"at least {plan.threshold} of it and its neighbours",
            len(present) + 1,
        )


def _deal(secret: bytes, holders: list[int], threshold: int, random: Random) -> dict[int, bytes]:
    shares = shamir.split(secret, [i + 1 for i in holders], threshold, random)
    return {share.at - 1: share.value for share in shares}


def _open(state: Dealt, dealer: int, parcel: Parcel) -> tuple[bytes, bytes]:
    """A dealer's shares, once they are what it has committed to."""
    me = state.keyed.advert
    both = unseal(state.secrets[dealer], parcel.sealed, state.adverts[dealer], me)
    shares = both[: shamir.SHARE_BYTES], both[shamir.SHARE_BYTES :]
    kinds: tuple[Purpose, Purpose] = ("seed share", "key share")
    digests = parcel.seed_digest, parcel.key_digest
    for what, value, digest in zip(kinds, shares, digests, strict=True):
        if commit(value, me.context, what, dealer, me.client) != digest:
            raise AbortError(
                client_name(dealer),
                f"{what} for {client_name(me.client)}",
                "the one it committed to",
                "another",
            )
    return shares

"""The server's four stages: what it sees, what it sends to whom, and the sum it arrives at.

*Guarantee.* All that the server knows is its `View`: public keys, commitments, ciphertexts, masked
vectors and revealed shares. No function here takes a client's plain vector.

A message that is refused changes nothing, as every stage is a pure transition: the caller may
give up the round, or go on as if the client had dropped out.

Bonawitz et al. (2017), with neighbours as Bell et al. (2020).
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from federated.secure import shamir
from federated.secure.graph import is_connected
from federated.secure.keys import Purpose, commit, derive, key_pair, pair_mask
from federated.secure.masks import apply_masks, of_pairs
from federated.secure.messages import (
    COHORT,
    STAGES,
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

T = TypeVar("T")
Message = Advert | Deal | Masked | Answer
_KINDS = (Advert, Deal, Masked, Answer)  # by stage


class View(NamedTuple):
    """All that the server has seen of a round, by client.

    Attributes:
      stage: how many stages are closed.
      adverts: public keys.
      deals: commitments, and shares sealed for others.
      masked: vectors under masks.
      answers: revealed shares.
    """

    stage: int
    adverts: dict[int, Advert]
    deals: dict[int, Deal]
    masked: dict[int, Masked]
    answers: dict[int, Answer]


def begin() -> View:
    """The view before anything was sent."""
    return View(0, {}, {}, {}, {})


def receive(plan: Plan, view: View, message: Message) -> View:
    """Takes in one client's message.

    Args:
      plan: the round's terms.
      view: what was seen so far.
      message: of the stage that is open.

    Raises:
      AbortError: names the client: its message is of another stage or round, comes twice, comes
        after it dropped out, or isn't what the stage asks for.
    """
    who = client_name(message.client)
    check_member(plan, message.client, type(message).__name__)
    check_context(plan.context, message.context, who, type(message).__name__)
    if type(message) is not (*_KINDS, None)[view.stage]:
        raise AbortError(
            who, type(message).__name__, "one of the open stage", "a late or early one"
        )
    if message.client not in _expected(plan, view):
        raise AbortError(who, type(message).__name__, "those of the stage before only", "another's")
    if message.client in _senders(view):
        raise AbortError(who, type(message).__name__, "it once", "a replay")
    match message:
        case Advert():
            check_advert(plan.context, message, view.adverts)
            return view._replace(adverts=view.adverts | {message.client: message})
        case Deal():
            _check_deal(plan, view, message)
            return view._replace(deals=view.deals | {message.client: message})
        case Masked():
            _check_masked(plan, message)
            return view._replace(masked=view.masked | {message.client: message})
        case Answer():
            _check_answer(plan, view, message)
            return view._replace(answers=view.answers | {message.client: message})


def close(plan: Plan, view: View) -> View:
    """Ends a stage: whoever hasn't sent its message has dropped out.

    Raises:
      AbortError: names the cohort: too few are left around some client, or those who sent vectors
        fall apart into groups, whose sums the server would learn one by one.
      UserError: all stages are closed.
    """
    if view.stage == len(STAGES):
        raise UserError("secure aggregation: close", "an open stage", "a finished round")
    here = set(_senders(view))
    if not here:
        raise AbortError(COHORT, STAGES[view.stage], "some clients", "none")
    # In the last stage what counts is who can still give back the secrets of the stages before.
    for i in sorted(_needed(plan, view) if STAGES[view.stage] == "unmask" else here):
        left = len(here & {i, *plan.neighbours[i]})
        if left < plan.threshold:
            expected = f"{plan.threshold} or more of {client_name(i)} and its neighbours"
            raise AbortError(COHORT, STAGES[view.stage], expected, left)
    if STAGES[view.stage] == "mask" and not is_connected(here, plan.neighbours):
        raise AbortError(COHORT, "mask", "a connected graph of survivors", "one in parts")
    return view._replace(stage=view.stage + 1)


def roster(plan: Plan, view: View, client: int) -> Roster:
    """What a client is sent in stage 2."""
    return Roster(plan.context, _around(plan, client, view.adverts))


def inbox(plan: Plan, view: View, client: int) -> Inbox:
    """What a client is sent in stage 3."""
    deals = _around(plan, client, view.deals)
    parcels = {
        dealer: Parcel(deal.sealed[client], deal.seed_digests[client], deal.key_digests[client])
        for dealer, deal in deals.items()
    }
    return Inbox(plan.context, parcels)


def request(plan: Plan, view: View, client: int) -> Request:
    """What a client is asked in stage 4."""
    dealers = {client, *_around(plan, client, view.deals)}
    survivors = frozenset(dealers & view.masked.keys())
    return Request(plan.context, survivors, frozenset(dealers) - survivors)


def total(plan: Plan, view: View) -> np.ndarray:
    """The sum [D] modulo 2^32 of the vectors of all who sent one, when the last stage is closed.

    Only what doesn't cancel is taken off: each survivor's own mask, and the masks that survivors
    have in common with those who dropped out after they had dealt.

    Raises:
      AbortError: names a dealer whose shares give no secret, or not the one it committed to.
      UserError: a stage is still open.
    """
    if view.stage < len(STAGES):
        raise UserError("secure aggregation: total", "a finished round", STAGES[view.stage])
    result = np.zeros(plan.dimension, np.uint32)
    for message in view.masked.values():
        np.add(result, message.vector, out=result)
    own = []
    for i in sorted(view.masked):
        seed = _reconstruct(plan, view, i, "seed share")
        if commit(seed, plan.context, "seed", i) != view.deals[i].seed_digest:
            raise AbortError(client_name(i), "seed", "the one it committed to", "another")
        own.append(derive(seed, plan.context, "self mask", i, i))
    added, subtracted = _left_over(plan, view)
    apply_masks(result, subtracted, [*own, *added])
    return result


def _left_over(plan: Plan, view: View) -> tuple[list[bytes], list[bytes]]:
    """The keys of masks that survivors have added and subtracted, and nobody has cancelled."""
    added: list[bytes] = []
    subtracted: list[bytes] = []
    for gone in sorted(_needed(plan, view) - view.masked.keys()):
        pair = key_pair(_reconstruct(plan, view, gone, "key share"))
        if pair.public != view.adverts[gone].mask_key:
            raise AbortError(client_name(gone), "mask key", "that of its public key", "another")
        for other in _around(plan, gone, view.masked):
            plus, minus = of_pairs(other, {gone: pair_mask(pair, gone, view.adverts[other])})
            added += plus
            subtracted += minus
    return added, subtracted


def _reconstruct(plan: Plan, view: View, dealer: int, what: Purpose) -> bytes:
    answers = [view.answers[i] for i in sorted(view.answers)]
    revealed = [(x.client, x.seeds if what == "seed share" else x.keys) for x in answers]
    shares = [shamir.Share(i + 1, held[dealer]) for i, held in revealed if dealer in held]
    try:
        return shamir.join(shares, plan.threshold)
    except UserError as wrong:
        raise AbortError(client_name(dealer), f"{what}s", wrong.expected, wrong.got) from None


def _senders(view: View) -> Mapping[int, Message]:
    """Whose messages of the open stage have come."""
    stages: tuple[Mapping[int, Message], ...] = view[1:]
    return stages[view.stage]


def _expected(plan: Plan, view: View) -> set[int]:
    """Who may send a message in the open stage: whoever did in the stage before."""
    if view.stage == 0:
        return set(range(len(plan.neighbours)))
    before: tuple[Mapping[int, Message], ...] = view[1:]
    return set(before[view.stage - 1])


def _around(plan: Plan, client: int, messages: Mapping[int, T]) -> dict[int, T]:
    return {j: messages[j] for j in plan.neighbours[client] if j in messages}


def _needed(plan: Plan, view: View) -> set[int]:
    """Whose secrets the sum needs: all survivors', and those of dropouts whose masks are in it."""
    gone = view.deals.keys() - view.masked.keys()
    return set(view.masked) | {i for i in gone if _around(plan, i, view.masked)}


def _check_deal(plan: Plan, view: View, deal: Deal) -> None:
    who, others = client_name(deal.client), set(_around(plan, deal.client, view.adverts))
    if not (deal.sealed.keys() == deal.key_digests.keys() == others):
        raise AbortError(who, "shares", "some for each neighbour with keys", "others")
    if deal.seed_digests.keys() != others | {deal.client}:
        raise AbortError(
            who, "commitments", "one for each neighbour with keys, and its own", "others"
        )


def _check_masked(plan: Plan, message: Masked) -> None:
    vector = message.vector
    if vector.dtype != np.uint32 or vector.shape != (plan.dimension,):
        raise AbortError(
            client_name(message.client),
            "masked vector",
            f"uint32 of shape [{plan.dimension}]",
            f"{vector.dtype} of shape {list(vector.shape)}",
        )


def _check_answer(plan: Plan, view: View, revealed: Answer) -> None:
    me, asked = revealed.client, request(plan, view, revealed.client)
    if revealed.seeds.keys() != asked.survivors or revealed.keys.keys() != asked.dropouts:
        raise AbortError(client_name(me), "answer", "just the shares asked for", "others")
    for dealer, value in revealed.seeds.items():
        digest = view.deals[dealer].seed_digests[me]
        _check_share(plan, (dealer, me), "seed share", value, digest)
    for dealer, value in revealed.keys.items():
        digest = view.deals[dealer].key_digests[me]
        _check_share(plan, (dealer, me), "key share", value, digest)


def _check_share(
    plan: Plan, pair: tuple[int, int], what: Purpose, value: bytes, digest: bytes
) -> None:
    if commit(value, plan.context, what, *pair) != digest:
        dealer, holder = pair
        name = f"{what} of {client_name(dealer)}"
        raise AbortError(client_name(holder), name, "the committed one", "another")

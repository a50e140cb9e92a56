"""A key, a seal or a digest of one purpose, pair, round or session is none of another."""

import itertools

import numpy as np
import pytest

from federated.secure.keys import Purpose, agree, commit, derive, key_pair, label, seal, unseal
from federated.secure.messages import AbortError, Advert, Context
from tests.federated.secure.drive import flip

CONTEXT = Context(b"a session's name", 3)
RNG = np.random.default_rng(0)
MASKING = [key_pair(RNG.bytes(32)) for _ in range(3)]
SEALING = [key_pair(RNG.bytes(32)) for _ in range(3)]
ADVERTS = [Advert(CONTEXT, i, MASKING[i].public, SEALING[i].public) for i in range(3)]


def test_both_agree_and_nobody_else_does() -> None:
    assert agree(SEALING[0], SEALING[1].public, 1) == agree(SEALING[1], SEALING[0].public, 0)
    assert agree(SEALING[0], SEALING[1].public, 1) != agree(SEALING[2], SEALING[1].public, 1)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_of_small_order_is_refused(point: bytes) -> None:
    with pytest.raises(AbortError, match=r"^client 7: public keys: expected points of large order"):
        agree(SEALING[0], point, 7)


def test_every_part_of_what_a_key_is_for_changes_it() -> None:
    contexts = [CONTEXT, CONTEXT._replace(round=4), Context(b"another's name!!", 3)]
    purposes: list[Purpose] = ["pair mask", "self mask", "seal"]
    cases = list(itertools.product(contexts, purposes, [(1, 2), (2, 1), (1, 3)]))
    keys = {derive(b"s" * 32, context, what, *pair) for context, what, pair in cases}
    digests = {commit(b"s" * 32, context, what, *pair) for context, what, pair in cases}
    assert len(keys) == len(digests) == len(cases)
    assert {len(key) for key in keys} == {32}


def test_no_part_of_a_label_borrows_from_the_next() -> None:
    long, short = Context(b"name" + b"x" * 20, 1), Context(b"name" + b"x" * 19, 1)
    assert label(short, "seed", b"xab", b"c") != label(long, "seed", b"ab", b"c")
    assert label(long, "seed", b"ab", b"c") != label(long, "seed", b"a", b"bc")


def test_a_seal_opens_for_its_holder_only_and_as_it_was() -> None:
    shared = agree(SEALING[0], SEALING[1].public, 1)
    sealed = seal(shared, b"shares", ADVERTS[0], ADVERTS[1], RNG.bytes)
    assert unseal(shared, sealed, ADVERTS[0], ADVERTS[1]) == b"shares"
    other = MASKING[2].public
    later = [advert._replace(context=CONTEXT._replace(round=4)) for advert in ADVERTS]
    for wrong, dealer, holder in (
        (flip(sealed, RNG), ADVERTS[0], ADVERTS[1]),
        (sealed[:-1], ADVERTS[0], ADVERTS[1]),
        (b"", ADVERTS[0], ADVERTS[1]),
        (sealed, ADVERTS[0], ADVERTS[2]),
        (sealed, ADVERTS[1], ADVERTS[0]),
        (sealed, ADVERTS[0]._replace(mask_key=other), ADVERTS[1]),
        (sealed, ADVERTS[0], ADVERTS[1]._replace(mask_key=other)),
        (sealed, later[0], later[1]),
    ):
        with pytest.raises(AbortError) as refusal:
            unseal(shared, wrong, dealer, holder)
        assert refusal.value.who == f"client {dealer.client}"


def test_the_same_randomness_gives_the_same_keys() -> None:
    assert key_pair(bytes(32)).public == key_pair(bytes(32)).public

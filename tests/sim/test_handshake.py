"""Stall patterns and the withdraw rule."""

from itertools import islice

import pytest

from sim.handshake import STALLS, StreamError, WithdrawChecker, stalls


@pytest.mark.parametrize("kind", STALLS)
def test_share_and_determinism(kind):
    pattern = list(islice(stalls(kind, 3), 20_000))
    assert abs(sum(pattern) / len(pattern) - STALLS[kind]) < 0.02
    assert pattern == list(islice(stalls(kind, 3), 20_000))
    assert kind == "none" or pattern != list(islice(stalls(kind, 4), 20_000))


def test_unknown_kind():
    with pytest.raises(ValueError) as error:
        stalls("some")
    assert str(error.value) == "Stall kind must be one of none, light, heavy, not 'some'"


def test_withdrawn_payload():
    checker = WithdrawChecker("x")
    checker.observe(valid=1, ready=0, payload=5)
    with pytest.raises(StreamError, match=r"^Stream x withdrew payload 0x5 before it was taken"):
        checker.observe(valid=0, ready=1, payload=5)


def test_changed_payload():
    checker = WithdrawChecker("x")
    checker.observe(valid=1, ready=0, payload=5)
    with pytest.raises(StreamError, match=r"^Stream x changed payload 0x5 to 0x6 before"):
        checker.observe(valid=1, ready=1, payload=6)


def test_taken_payload_may_change():
    checker = WithdrawChecker("x")
    checker.observe(valid=1, ready=1, payload=5)
    checker.observe(valid=0, ready=1, payload=6)
    checker.observe(valid=1, ready=0, payload=7)
    checker.observe(valid=1, ready=1, payload=7)

"""The stream's model: rate, queue in front of the loader, and the buffers behind it."""

import pytest

from compiler.stream import PARAMETER_BANKS, Stream
from isa.geometry import TINY
from isa.image import LAYER_WORDS


def stream(rate=1.0, queue=0):
    return Stream(TINY, start=0, rate=rate, queue=queue)


def test_words_come_at_the_rate():
    assert stream().take(100) == 100
    assert stream(0.5).take(100) == 200
    assert stream(0.5, queue=1).take(100) == 200


def test_a_packet_costs_its_words_and_a_cycle():
    assert stream().layer(0) == 1 + 1 + LAYER_WORDS
    assert stream().layer(30) == 30 + 1 + 1 + LAYER_WORDS
    assert stream(0.5, queue=1).layer(0) == 2 * (1 + LAYER_WORDS)  # the word comes meanwhile


def test_the_queue_fills_while_the_loader_waits():
    """Then words come one a cycle until it is empty: half of them from the queue."""
    waited = stream(0.5, queue=10)
    waited.wait(100)  # 50 words came, 10 had room
    assert waited.copy().take(20) == 120
    assert waited.copy().take(10) == 110
    assert waited.take(30) == 100 + 20 + 20
    waited.wait(150)  # 5 words
    assert waited.take(10) == 160
    assert waited.take(1) == 162


def test_something_else_comes_out_of_the_memory():
    """While the loader has to wait anyway, that costs nothing."""
    shared = stream(0.5)
    shared.yield_to(10)
    assert shared.take(10) == 40
    shared.yield_to(10)
    shared.wait(70)
    assert shared.take(10) == 90


def test_a_full_ring_is_waited_for():
    """tiny: a ring of 256 words, filled with one word a cycle."""
    ring = stream()
    arrivals = ring.weights(2, 100)
    assert arrivals == [102, 202]
    ring.release(100, [500, 600], 700)
    assert ring.weights(1, 100) == [600]  # its header came before
    assert ring.weights(1, 56) == [658]  # the second set is still held
    assert ring.weights(1, 100) == [760]


def test_parameters_wait_for_the_tile_before_the_last():
    banks = stream()
    for _ in range(PARAMETER_BANKS):
        banks.parameters(9)
    banks.release(1, [], 1000)
    assert banks.parameters(9) == 1011


def test_a_copy_goes_its_own_way():
    first = stream()
    first.weights(1, 200)
    first.release(200, [900], 1000)
    second = first.copy()
    assert second.weights(1, 100) == [1000]
    assert first.now == 202
    assert first.weights(1, 100) == [pytest.approx(1000)]

"""The coder against the interval in exact fractions, against entropy, and against damage."""

import itertools
import math
import random
from fractions import Fraction

import pytest

from minilab.pacbayes.coding import (
    Decoder,
    Encoder,
    adaptive_bits,
    entropy_bits,
    get_natural,
    get_symbols,
    put_natural,
    put_symbols,
)


def coded(symbols, L: int) -> bytes:
    encoder = Encoder()
    put_symbols(encoder, symbols, L)
    return encoder.finish()


def drawn(d: int, weights, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(len(weights)), weights, k=d)


def exact_interval(symbols, L: int) -> tuple[Fraction, Fraction]:
    """Where the message must lie, with no rounding: the textbook's definition."""
    low, width, seen = Fraction(0), Fraction(1), [0] * L
    for symbol in symbols:
        share = [Fraction(2 * n + 1, 2 * sum(seen) + L) for n in seen]
        low += width * sum(share[:symbol])
        width *= share[symbol]
        seen[symbol] += 1
    return low, width


CASES = [(0, [1, 1]), (1, [1, 1, 1]), (900, [1, 5, 20, 5, 1]), (400, [1] * 7), (2500, [1, 60, 1]), (60, [0, 1]),
         (1000, [1] * 256)]  # fmt: skip


@pytest.mark.parametrize("d, weights", CASES)
def test_what_is_decoded_is_what_was_encoded_within_two_bits_of_its_improbability(d, weights):
    symbols, L = drawn(d, weights), len(weights)
    message = coded(symbols, L)
    decoder = Decoder(message)
    assert get_symbols(decoder, d, L) == symbols
    decoder.finish()
    ideal = adaptive_bits([symbols.count(i) for i in range(L)])
    assert 8 * len(message) < ideal + 2 + 8 + 1e-3  # two to end it, and up to a whole byte


@pytest.mark.parametrize("d, weights", [(1, [1, 1]), (20, [1, 5, 1]), (15, [3, 1, 1, 2]), (60, [0, 1])])
def test_a_short_message_lies_in_the_interval_that_exact_fractions_give(d, weights):
    """A long one need not: the interval is rounded where it begins, at first by more than it is wide at the end."""
    symbols, L = drawn(d, weights, seed=1), len(weights)
    message = coded(symbols, L)
    low, width = exact_interval(symbols, L)
    found = Fraction(int.from_bytes(message, "big"), 2 ** (8 * len(message)))
    rounded = Fraction(d, 2**46)
    assert rounded < width / 2 and low - rounded <= found < low + width + rounded
    assert -math.log2(width) == pytest.approx(adaptive_bits([symbols.count(i) for i in range(L)]), abs=1e-6)


def test_a_long_message_is_within_a_percent_of_the_entropy():
    """Counting as it goes costs about (L - 1) / 2 log2 d bits: nothing against 20,000 symbols."""
    symbols = drawn(20_000, [1, 5, 20, 5, 1])
    entropy = entropy_bits([symbols.count(i) for i in range(5)])
    assert entropy < 8 * len(coded(symbols, 5)) < 1.01 * entropy
    shares = [w / 32 for w in (1, 5, 20, 5, 1)]
    assert entropy == pytest.approx(-20_000 * sum(p * math.log2(p) for p in shares), rel=0.01)


def test_no_message_begins_with_another():
    """So lengths are a prior: 2^-bits over all messages sums to at most 1, and none has to say how long it is."""
    messages = []
    for d, L in itertools.product(range(1, 7), (2, 3)):
        for symbols in itertools.product(range(L), repeat=d):
            encoder = Encoder()
            put_natural(encoder, d)
            put_natural(encoder, L)
            put_symbols(encoder, symbols, L)
            messages.append(encoder.finish())
    messages.sort()
    assert not any(later.startswith(earlier) for earlier, later in itertools.pairwise(messages))  # neighbors, if any
    assert sum(Fraction(1, 256 ** len(m)) for m in messages) <= 1


@pytest.mark.parametrize("after", [b"\x00\x00", b"\xff\xff\xff", b"\x5a"])
def test_whatever_follows_a_message_decodes_the_same_and_is_noticed(after):
    symbols = drawn(300, [1, 3, 1], seed=2)
    decoder = Decoder(coded(symbols, 3) + after)
    assert get_symbols(decoder, 300, 3) == symbols
    with pytest.raises(ValueError, match="cut off"):
        decoder.finish()


def test_a_message_that_was_cut_off_is_noticed():
    decoder = Decoder(coded(drawn(300, [1, 3, 1]), 3)[:-1])
    get_symbols(decoder, 300, 3)
    with pytest.raises(ValueError, match="cut off"):
        decoder.finish()


def test_numbers_cost_the_bits_of_elias_gamma_code():
    numbers = [*range(1, 40), 1000, 2**30, 2**60]
    encoder = Encoder()
    for n in numbers:
        put_natural(encoder, n)
    message = encoder.finish()
    assert [get_natural(decoder) for decoder in [Decoder(message)] for _ in numbers] == numbers
    exact = sum(2 * math.floor(math.log2(n)) + 1 for n in numbers) + 2
    assert len(message) == math.ceil(exact / 8)
    with pytest.raises(ValueError, match="damaged"):
        get_natural(Decoder(bytes(20)))


def test_known_lengths():
    assert adaptive_bits([1, 1]) == pytest.approx(3)  # 1/2, and then 1/4
    assert adaptive_bits([2, 0]) == pytest.approx(-math.log2(3 / 8))
    assert entropy_bits([5, 5, 0]) == pytest.approx(10)
    assert entropy_bits([7, 0]) == 0

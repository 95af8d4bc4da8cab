"""Arithmetic coding: symbols to bits and back, exactly, in as many bits as they are improbable.

A message is a number in [0, 1). Each symbol narrows the interval where it lies to a part as wide as the symbol is
likely (Rissanen and Langdon, 1979), and bits leave as soon as they are certain (Witten, Neal and Cleary, 1987):

    bits <= sum_i log2 1/p_i + 2.

Notable:

- Probabilities are ratios of integers, and so is the interval: encoder and decoder agree to the last bit.
- The bits say themselves where they end: the decoder knows how many symbols there are, and whatever follows decodes the
  same. So no message begins with another, 2^-bits sums to at most 1 over all of them, and that is a prior (Kraft). The
  papers pay 2 log2(bits) more, for a code that does not know its end.
- Nobody sends how often each symbol occurs. Both sides count as they go, beginning with one half each (Krichevsky and
  Trofimov, 1981). That costs about (L - 1)/2 log2 d bits more than to know it, and no table.

Shapes: d symbols of L kinds.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

PRECISION = 48  # bits of the interval: to round it costs less than 2^-20 of a bit a symbol
QUARTER, HALF, WHOLE = (1 << PRECISION - shift for shift in (2, 1, 0))


class _Interval:
    """From low up to high, in units of 2^-PRECISION, of what is not decided yet."""

    def __init__(self) -> None:
        self._low, self._high = 0, WHOLE

    def _narrow(self, symbol: int, sizes: Sequence[int]) -> Iterator[int]:
        """Keep the symbol's part. Then double the half or the middle that it lies in, and yield where that begins.

        0 or HALF is a bit of the message. QUARTER, the middle, says only that the next two bits differ.
        """
        width, total, start = self._high - self._low, sum(sizes), sum(sizes[:symbol])
        self._high = self._low + width * (start + sizes[symbol]) // total
        self._low += width * start // total
        while True:
            if self._high <= HALF:
                begin = 0
            elif self._low >= HALF:
                begin = HALF
            elif self._low >= QUARTER and self._high <= HALF + QUARTER:
                begin = QUARTER
            else:
                return
            self._low, self._high = 2 * (self._low - begin), 2 * (self._high - begin)
            yield begin


class Encoder(_Interval):
    """Takes symbols and gives a message."""

    def __init__(self) -> None:
        super().__init__()
        self._bits: list[int] = []
        self._opposite = 0  # how many bits, all the opposite of the next, follow that one

    def put(self, symbol: int, sizes: Sequence[int]) -> None:
        """The next symbol, which has probability sizes[symbol] / sum(sizes)."""
        for begin in self._narrow(symbol, sizes):
            if begin == QUARTER:
                self._opposite += 1
            else:
                self._emit(int(begin == HALF))

    def finish(self) -> bytes:
        """The message. Its bits end in a quarter that lies within the interval, and zeros fill the last byte."""
        self._opposite += 1
        self._emit(int(self._low >= QUARTER))
        bits = self._bits + [0] * (-len(self._bits) % 8)
        return int("".join(map(str, bits)), 2).to_bytes(len(bits) // 8, "big")

    def _emit(self, bit: int) -> None:
        self._bits += [bit] + [1 - bit] * self._opposite
        self._opposite = 0


class Decoder(_Interval):
    """Gives the symbols of a message back, in their order."""

    def __init__(self, message: bytes) -> None:
        super().__init__()
        self._message, self._read, self._value = message, 0, 0
        for _ in range(PRECISION):
            self._value = 2 * self._value + self._next_bit()

    def get(self, sizes: Sequence[int]) -> int:
        """The next symbol, if i has probability sizes[i] / sum(sizes)."""
        place = ((self._value - self._low + 1) * sum(sizes) - 1) // (self._high - self._low)
        symbol = next(i for i, end in enumerate(itertools.accumulate(sizes)) if place < end)
        for begin in self._narrow(symbol, sizes):
            self._value = 2 * (self._value - begin) + self._next_bit()
        return symbol

    def finish(self) -> None:
        """Raises ValueError unless the message ends where its symbols do."""
        needed = math.ceil((self._read - PRECISION + 2) / 8)  # `Encoder.finish` adds two bits to what was narrowed
        if needed != len(self._message):
            raise ValueError(f"a message of {len(self._message)} bytes decodes as one of {needed}: it was cut off, "
                             "or changed, or is meant for another decoder")

    def _next_bit(self) -> int:
        byte, bit = divmod(self._read, 8)
        self._read += 1
        return self._message[byte] >> 7 - bit & 1 if byte < len(self._message) else 0


# What is coded.


def put_symbols(encoder: Encoder, symbols: Sequence[int], L: int) -> None:
    """Symbols from 0 to L - 1. Symbol i has probability (2 n_i + 1) / (2 n + L) after n, of which n_i were like it."""
    sizes = [1] * L
    for symbol in symbols:
        encoder.put(symbol, sizes)
        sizes[symbol] += 2


def get_symbols(decoder: Decoder, d: int, L: int) -> list[int]:
    """The next d symbols of L kinds."""
    sizes, symbols = [1] * L, []
    for _ in range(d):
        symbols.append(decoder.get(sizes))
        sizes[symbols[-1]] += 2
    return symbols


def put_natural(encoder: Encoder, n: int) -> None:
    """A number from 1 on, in 2 floor(log2 n) + 1 bits (Elias' gamma code): its digits, after as many zeros less one."""
    digits = f"{n:b}"
    for bit in "0" * (len(digits) - 1) + digits:
        encoder.put(int(bit), (1, 1))


def get_natural(decoder: Decoder) -> int:
    """The next number. Raises ValueError for one of more than 64 digits, which only a damaged message has."""
    zeros = 0
    while not decoder.get((1, 1)):
        zeros += 1
        if zeros == 64:
            raise ValueError("the message holds a number without end: it is damaged")
    n = 1
    for _ in range(zeros):
        n = 2 * n + decoder.get((1, 1))
    return n


def adaptive_bits(counts: Sequence[int]) -> float:
    """What symbols cost that occur so often, in whatever order: -log2 [Γ(L/2) / Γ(d + L/2) Π Γ(n_i + ½) / Γ(½)]."""
    L, d = len(counts), sum(counts)
    nats = math.lgamma(d + L / 2) - math.lgamma(L / 2) - sum(math.lgamma(n + 0.5) - math.lgamma(0.5) for n in counts)
    return nats / math.log(2)


def entropy_bits(counts: Sequence[int]) -> float:
    """d times the entropy of the counts: what no code can beat that is told how often each symbol occurs."""
    d = sum(counts)
    return sum(n * math.log2(d / n) for n in counts if n)

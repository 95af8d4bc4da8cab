"""What is sent for a classifier: a message of some hundred bytes. Its length is the complexity in the bound.

    network · projection · seed · L · √d · codebook · symbols

in one arithmetic code. Notable:

- All that the decoder was free to choose is in the message: the choice is paid for. What only training knew (learning
  rate, steps, loss, how often it was tried) is not, and costs nothing: the bound holds for all messages at once.
- A codebook's values cost 16 bits each, as float16, and d is a square.
- For storage a message is sealed: 8 bytes, which follow from the message and from the decoder. They choose nothing, and
  so they cost nothing.

Shapes: L values in the codebook, d symbols.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Int64
from torch import Tensor

from minilab.pacbayes.coding import Decoder, Encoder, get_natural, get_symbols, put_natural, put_symbols

SEAL = 8  # bytes
MOST = 1 << 12  # values, and the root of d: a damaged message could ask for any number


@dataclass(frozen=True)
class Message:
    """A classifier, to a decoder that has the same lists of networks and of projections."""

    network: int  # place in the list, from 0
    projection: int  # the same
    seed: int  # of w0 and P, from 1: small ones are cheaper
    codebook: Float16[Tensor, "L"]
    symbols: Int64[Tensor, "d"]

    def values(self) -> Tensor:
        """The d numbers, in float32."""
        return self.codebook.float()[self.symbols]


def encode(message: Message) -> bytes:
    """Raises ValueError for a codebook that float16 does not hold."""
    L, d = len(message.codebook), len(message.symbols)
    if not message.codebook.isfinite().all():
        raise ValueError(f"the codebook {message.codebook.tolist()} is beyond float16: training diverged; lower lr")
    assert math.isqrt(d) ** 2 == d and message.seed >= 1, (d, message.seed)
    encoder = Encoder()
    for number in (message.network + 1, message.projection + 1, message.seed, L, math.isqrt(d)):
        put_natural(encoder, number)
    for byte in message.codebook.numpy().astype("<f2").tobytes():
        encoder.put(byte, [1] * 256)
    put_symbols(encoder, message.symbols.tolist(), L)
    return encoder.finish()


def decode(data: bytes) -> Message:
    """The inverse of `encode`. Raises ValueError for bytes that are no whole message."""
    decoder = Decoder(data)
    network, projection, seed, L, root = (get_natural(decoder) for _ in range(5))
    if max(L, root) > MOST:
        raise ValueError(f"the message speaks of {root}² symbols of {L} kinds: it is damaged")
    codebook = np.frombuffer(bytes(decoder.get([1] * 256) for _ in range(2 * L)), "<f2").astype(np.float16)
    symbols = get_symbols(decoder, root**2, L)
    decoder.finish()
    return Message(network - 1, projection - 1, seed, torch.from_numpy(codebook), torch.tensor(symbols))


def seal(message: bytes, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """The message as a file that shows damage, and whether a network with other parameters opens it."""
    return message + _check(message) + fingerprint(shapes)


def unseal(file: bytes) -> tuple[bytes, bytes]:
    """The message, and the fingerprint of the network it is for. Raises ValueError if the file is damaged."""
    message, check, meant_for = file[:-SEAL], file[-SEAL : -SEAL // 2], file[-SEAL // 2 :]
    if check != _check(message):
        raise ValueError(f"the file of {len(file)} bytes is damaged (cut off, or changed): get it again")
    return message, meant_for


def fingerprint(shapes: Mapping[str, Sequence[int]]) -> bytes:
    """Four bytes of the names and shapes of a network's parameters."""
    return _check(str([(name, tuple(shape)) for name, shape in shapes.items()]).encode())


def _check(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(SEAL // 2, "big")

"""A certificate is its file: bit for bit, paid in full, and nothing else opens it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from minilab.core.device import threads
from minilab.pacbayes.bounds import occam_kl
from minilab.pacbayes.coding import Encoder, adaptive_bits, put_natural
from minilab.pacbayes.compress import Recipe, bent_cross_entropy, certificate, certify, error_rate, fit, learn, rebuild
from minilab.pacbayes.data import Dataset, shuffled_labels
from minilab.pacbayes.message import SEAL, Message, decode, encode, seal, unseal
from minilab.pacbayes.networks import NETWORKS, cnn, mlp
from minilab.pacbayes.subspace import PROJECTIONS, Subspace

RECIPE = Recipe(d=100, L=3, steps=200, rounded_steps=200)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int = 4000, classes: int = 4, seed: int = 0) -> Dataset:
    """Pictures of 8 x 8 around one mean a class, in bytes. Easy, but for some that overlap."""
    g = generator(seed)
    means = 128 + 22 * torch.randn(classes, 1, 8, 8, generator=g)

    def some(count: int):
        y = torch.randint(classes, (count,), generator=g)
        x = means[y] + 50 * torch.randn(count, 1, 8, 8, generator=g)
        return x.clamp(0, 255).to(torch.uint8), y

    return Dataset("blobs", *some(n), *some(4000), tuple("abcd"[:classes]))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return blobs()


@pytest.fixture(scope="module")
def file(data: Dataset) -> bytes:
    return learn(data, RECIPE).file


@pytest.mark.parametrize("d, L, seed", [(1, 2, 1), (100, 7, 3), (900, 3, 40)])
def test_a_message_is_what_was_written_and_costs_what_its_parts_do(d, L, seed):
    g = generator(d)
    message = Message(1, 2, seed, torch.randn(L, generator=g).half(), torch.randint(L, (d,), generator=g))
    data = encode(message)
    back = decode(data)
    assert (back.network, back.projection, back.seed) == (1, 2, seed)
    assert torch.equal(back.codebook, message.codebook) and torch.equal(back.symbols, message.symbols)
    gamma = sum(2 * math.floor(math.log2(n)) + 1 for n in (2, 3, seed, L, math.isqrt(d)))
    ideal = gamma + 16 * L + adaptive_bits(message.symbols.bincount(minlength=L).tolist())
    assert ideal <= 8 * len(data) <= ideal + 2 + 8


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_rebuilt_network_is_the_one_that_was_sent_bit_for_bit(data, network, projection):
    subspace = Subspace(network, data.shape, 4, d=16, projection=projection, seed=2)
    message = Message(NETWORKS.index(network), PROJECTIONS.index(projection), 2,
                      torch.tensor([-1.5, 0.25, 3]).half(), torch.randint(3, (16,), generator=generator()))
    file = seal(encode(message), subspace.shapes)
    P = torch.stack([subspace.double().P(e) for e in torch.eye(16, dtype=torch.float64)], dim=1).numpy()
    sent = subspace.w0.numpy() + subspace.s.numpy() * (P @ np.array([-1.5, 0.25, 3])[message.symbols.numpy()])
    for count in (1, 2):
        with threads(count):
            rebuilt = rebuild(file, data.shape, 4)
        found = torch.cat([p.flatten() for p in rebuilt.parameters()])
        np.testing.assert_array_equal(found.numpy(), sent.astype(np.float32))


def test_the_file_certifies_the_error_of_what_is_inside_it_and_pays_for_all_its_bits(data, file):
    found = certificate(file, data, tried=1)
    wrong = int((rebuild(file, data.shape, 4)(data.train_x).argmax(dim=1) != data.train_y).sum())
    assert found.train_error == wrong / 4000
    assert found.bits == 8 * (len(file) - SEAL)
    assert found.bound.value == occam_kl(found.train_error, 4000, found.bits * math.log(2), 0.05)
    more = certificate(file, data, tried=64)
    assert more.bound.value == occam_kl(found.train_error, 4000, (found.bits + 6) * math.log(2), 0.05)
    assert 0.02 < found.train_error < 0.3 and found.test_error < found.bound.value < 0.5
    assert not found.bound.vacuous


def test_the_same_seed_writes_the_same_file(data, file):
    assert learn(data, RECIPE).file == file
    assert certify(data, RECIPE) == certificate(file, data)
    assert learn(data, replace(RECIPE, seed=2)).file != file


def test_shuffled_labels_leave_nothing_to_certify(data):
    shuffled = shuffled_labels(data, generator())
    found = certificate(learn(shuffled, RECIPE).file, shuffled)
    assert found.bound.vacuous and found.bound.guess == pytest.approx(0.75, abs=0.01)
    assert 0.65 < found.train_error < found.bound.value


@pytest.mark.parametrize("cut", [1, SEAL, 40])
def test_a_file_that_was_cut_off_is_refused(data, file, cut):
    with pytest.raises(ValueError, match="damaged"):
        rebuild(file[:-cut], data.shape, 4)


def test_a_file_with_any_byte_changed_is_refused(data, file):
    for i in range(len(file)):
        changed = file[:i] + bytes([file[i] ^ 1]) + file[i + 1 :]
        with pytest.raises(ValueError, match="damaged|not for"):
            rebuild(changed, data.shape, 4)


def test_another_network_does_not_open_a_file(data, file):
    for shape, classes, networks in [((1, 8, 8), 5, NETWORKS), ((1, 9, 9), 4, NETWORKS), ((1, 8, 8), 4, (cnn, mlp))]:
        with pytest.raises(ValueError, match="not for"):
            rebuild(file, shape, classes, networks=networks)
    second = Message(1, 0, 1, torch.zeros(2).half(), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="longer lists"):
        rebuild(seal(encode(second), {}), data.shape, 4, networks=(mlp,))


def test_bytes_that_are_no_message_are_refused_quickly():
    g = generator(5)
    for length in (0, 1, 7, 50):
        with pytest.raises(ValueError):
            unseal(bytes(torch.randint(256, (length,), generator=g).tolist()))
    endless = Encoder()
    for number in (1, 1, 1, 3, 10**6):
        put_natural(endless, number)
    with pytest.raises(ValueError, match="1000000² symbols"):
        decode(endless.finish())


def test_recipes_that_cannot_be_sent_are_refused_before_training(data):
    with pytest.raises(ValueError, match="give a square"):
        Recipe(d=1000)
    with pytest.raises(ValueError, match="at least 2 values"):
        Recipe(L=1)
    with pytest.raises(ValueError, match="not in the list"):
        learn(data, RECIPE, networks=(cnn,))
    with pytest.raises(ValueError, match="beyond float16"):
        encode(Message(0, 0, 1, torch.tensor([1.0, torch.inf]).half(), torch.zeros(4, dtype=torch.long)))


@pytest.mark.parametrize("power", [0.0, 1e-4, 0.5, 1.0])
def test_the_bent_loss_has_the_gradient_of_cross_entropy_times_a_power_of_p(power):
    logits = torch.randn(6, 3, generator=generator(), dtype=torch.float64).requires_grad_()
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    (found,) = torch.autograd.grad(bent_cross_entropy(logits, y, power), logits)
    p = logits.softmax(dim=1)
    of_cross_entropy = (p - nn.functional.one_hot(y, 3)) / 6
    torch.testing.assert_close(found, p.gather(1, y[:, None]) ** power * of_cross_entropy)
    likelihood = p.gather(1, y[:, None])
    expected = 1 - likelihood.mean() if power == 1 else nn.functional.cross_entropy(logits, y)
    if power != 0.5:
        torch.testing.assert_close(bent_cross_entropy(logits, y, power), expected, atol=1e-3, rtol=0)


def test_an_ordinary_network_is_fitted_by_the_same_loop(data):
    network = mlp(data.shape, 4)
    log = fit(network, data, RECIPE, steps=200, lr=1e-3)
    assert len(log.losses) == 200
    assert error_rate(network, data.train_x, data.train_y) < 0.1

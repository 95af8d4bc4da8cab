"""What a certificate costs in time: the whole of it, a step in a subspace beside an ordinary one, and the coder."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.pacbayes.coding import Decoder, Encoder, adaptive_bits, entropy_bits, get_symbols, put_symbols
from minilab.pacbayes.compress import Recipe, certify
from minilab.pacbayes.data import Dataset
from minilab.pacbayes.experiments_certify import QUICK, SETS, SMALL
from minilab.pacbayes.subspace import PROJECTIONS, Subspace


@dataclass(frozen=True)
class SpeedPreset:
    name: str
    data: str  # of SETS
    recipe: Recipe
    steps: int = 50  # of training, a turn
    symbols: int = 20_000  # to code, a turn
    products: int = 20  # by each projection and its transpose, a turn
    shares: tuple[float, ...] = (0.7, 0.15, 0.1, 0.04, 0.01)  # how often each occurs
    repeats: int = 7
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


SPEED = {
    "cpu": SpeedPreset("cpu", "digits", QUICK, steps=5, symbols=500, products=2, repeats=2, device="cpu"),
    "digits": SpeedPreset("digits", "digits", SMALL, device="cpu"),
    "fashion": SpeedPreset("fashion", "fashion_mnist", Recipe(), device="cpu"),
    "gpu": SpeedPreset("gpu", "fashion_mnist", Recipe(), device="cuda"),
}


@with_threads
def speed(preset: SpeedPreset) -> Record:
    """Seconds of a certificate, a step in a subspace beside an ordinary one, a product by each projection, symbols a
    second, bits over the ideal."""
    started, device = time.perf_counter(), pick_device(preset.device)
    data = SETS[preset.data]().to(device)
    began = time.perf_counter()
    found = certify(data, preset.recipe)
    whole = time.perf_counter() - began
    steps, (moves, stored) = trainings(data, preset), products(data, preset)
    symbols = torch.multinomial(torch.tensor(preset.shares), preset.symbols, replacement=True,
                                generator=torch.Generator().manual_seed(preset.seed))
    L, message = len(preset.shares), coded(symbols, len(preset.shares))
    seconds = interleaved({**steps, **moves, "encode": lambda: coded(symbols, L),
                           "decode": lambda: get_symbols(Decoder(message), len(symbols), L)},
                          repeats=preset.repeats, device=device)
    counts, bits = torch.bincount(symbols, minlength=L).tolist(), 8 * len(message)
    results = {
        "certificate_s": whole, "bound": found.bound.value, "bits": found.bits,
        "step_s": {name: spread([s / preset.steps for s in seconds[name]]) for name in steps},
        "product_s": {name: spread([s / preset.products for s in seconds[name]]) for name in moves}, "stored": stored,
        "times_ordinary": spread([a / b for a, b in zip(seconds["subspace"], seconds["ordinary"], strict=True)]),
        "symbols_per_s": {way: spread([len(symbols) / s for s in seconds[way]]) for way in ("encode", "decode")},
        "bits_over_ideal": bits / adaptive_bits(counts) - 1, "bits_over_entropy": bits / entropy_bits(counts) - 1}
    return Record.new(experiment="pacbayes/speed", preset=preset, results=results, started=started)


def coded(symbols: Tensor, L: int) -> bytes:
    encoder = Encoder()
    put_symbols(encoder, symbols.tolist(), L)
    return encoder.finish()


def trainings(data: Dataset, preset: SpeedPreset) -> dict[str, Callable[[], None]]:
    """As many steps of Adam on the same batch: of d numbers, and of all weights."""
    recipe = preset.recipe
    subspace = Subspace(recipe.network, data.shape, len(data.classes), d=recipe.d, seed=recipe.seed,
                        projection=recipe.projection).to(data.train_y.device)
    ordinary = recipe.network(data.shape, len(data.classes)).to(data.train_y.device)
    x, y = data.train_x[: recipe.batch], data.train_y[: recipe.batch]

    return {name: adam_steps(model, model.parameters(), x, y, preset.steps)
            for name, model in (("subspace", subspace), ("ordinary", ordinary))}


def adam_steps(model: nn.Module, parameters: Iterable[nn.Parameter], x: Tensor, y: Tensor, steps: int
               ) -> Callable[[], None]:
    """So many steps of Adam on one batch, of those parameters that are trained."""
    optimizer = torch.optim.Adam([p for p in parameters if p.requires_grad], lr=1e-3)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return run


def products(data: Dataset, preset: SpeedPreset) -> tuple[dict[str, Callable[[], None]], dict[str, int]]:
    """P v and the way back of its gradient, by each projection; and how many numbers each keeps."""
    recipe, device = preset.recipe, data.train_y.device
    weights = sum(p.numel() for p in recipe.network(data.shape, len(data.classes)).parameters())
    generator = torch.Generator().manual_seed(preset.seed)
    made = {kind.__name__: kind(weights, recipe.d, generator).to(device) for kind in PROJECTIONS}
    v = torch.randn(recipe.d, generator=generator).to(device).requires_grad_()
    w = torch.randn(weights, generator=generator).to(device)

    def applied(P: nn.Module) -> Callable[[], None]:
        def run() -> None:
            for _ in range(preset.products):
                torch.autograd.grad(P(v), v, w)

        return run

    return ({name: applied(P) for name, P in made.items()},
            {name: sum(kept.numel() for kept in P.buffers()) for name, P in made.items()})

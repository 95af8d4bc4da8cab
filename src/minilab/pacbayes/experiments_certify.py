"""What can be certified: one set of data under every bound, the size that certifies most, and whether bounds hold."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.pacbayes import bounds, gaussian, margins
from minilab.pacbayes.compress import TRIED, Recipe, begun, certificate, error_rate, fit, learn, rebuild
from minilab.pacbayes.data import Dataset, cifar10, digits, fashion_mnist, mnist5k
from minilab.pacbayes.gaussian import GaussianClassifier, GaussianRecipe
from minilab.pacbayes.message import SEAL
from minilab.pacbayes.mnist1d import mnist1d
from minilab.pacbayes.networks import NETWORKS, Build, mlp
from minilab.pacbayes.subspace import intrinsic_dimension

SETS: dict[str, Callable[[], Dataset]] = {
    "digits": digits, "mnist5k": mnist5k, "fashion_mnist": fashion_mnist, "cifar10": cifar10,
    "mnist1d": lambda: mnist1d(4000, torch.Generator().manual_seed(0)),
}
QUICK = Recipe(d=100, steps=60, rounded_steps=60)  # for tests and live cells: it has learned little
SMALL = Recipe(d=400, L=3)  # for sets of a few thousand examples


@dataclass(frozen=True)
class LadderPreset:
    name: str
    data: str  # of SETS
    recipe: Recipe  # of the file
    sigma0: float = 0.1  # of the random prior
    tried: int = 16  # priors that we compared on these data, and fewer
    posterior: GaussianRecipe = GaussianRecipe(steps=4000, lr=5e-3, floor=0.05)
    informed_sigma0: float = 0.02  # of the prior that has seen half the data
    prior: GaussianRecipe = GaussianRecipe(steps=4000, lr=2e-3, objective=None)
    passes: int = 10
    delta: float = 0.05
    seed: int = 1  # the first of
    repeats: int = 3  # seeds: of files, priors, and the order of examples
    threads: int | None = 1
    device: str = "auto"


LADDER = {
    "cpu": LadderPreset("cpu", "digits", QUICK, posterior=GaussianRecipe(steps=60, lr=5e-3, floor=0.05),
                        prior=GaussianRecipe(steps=60, lr=2e-3, objective=None), passes=2, repeats=2, device="cpu"),
    "digits": LadderPreset("digits", "digits", Recipe(d=144, L=5, steps=1500, rounded_steps=1500), device="cpu"),
    "mnist5k": LadderPreset("mnist5k", "mnist5k", SMALL, device="cpu"),
    "mnist1d": LadderPreset("mnist1d", "mnist1d", SMALL, device="cpu"),
    "fashion": LadderPreset("fashion", "fashion_mnist", Recipe(), device="cpu"),
    "gpu": LadderPreset("gpu", "fashion_mnist", Recipe(steps=6000, rounded_steps=6000),
                        posterior=GaussianRecipe(steps=16_000, lr=5e-3, floor=0.05),
                        prior=GaussianRecipe(steps=16_000, lr=2e-3, objective=None), device="cuda"),
}


@with_threads
def ladder(preset: LadderPreset) -> Record:
    """One file under every bound for it, a classifier that draws its weights, and two that have seen half the data.

    A row has what it certifies, the error on the examples of the bound (`train_error`), its nats, and the error on test
    examples: in `rows` those of the first seed, in `seeds` lists with one entry a seed.
    """
    started, device = time.perf_counter(), pick_device(preset.device)
    data = SETS[preset.data]().to(device)
    n, guess = len(data.train_y), 1 - float(data.train_y.bincount().max()) / len(data.train_y)
    found = []
    for seed in progress(range(preset.seed, preset.seed + preset.repeats), desc=data.name, unit="ladder"):
        one = replace(preset, seed=seed, recipe=replace(preset.recipe, seed=seed),
                      posterior=replace(preset.posterior, seed=seed), prior=replace(preset.prior, seed=seed))
        found.append(_of_a_file(one, data) | _of_a_posterior(one, data))
    seeds = {name: {part: [rows[name][part] for rows in found] for part in ("bound", "nats", "train_error",
                                                                            "test_error")} for name in found[0]}
    return Record.new(experiment="pacbayes/ladder", preset=preset, started=started, results={
        "data": data.name, "n": n, "test_n": len(data.test_y), "guess": guess, "rows": found[0], "seeds": seeds})


def _of_a_file(preset: LadderPreset, data: Dataset) -> dict[str, dict]:
    """The network in one file: by the norms of its weights, as if these had 32 bits each, by the length of the file."""
    seconds = time.perf_counter()
    file = learn(data, preset.recipe).file
    network = rebuild(file, data.shape, len(data.classes)).to(data.train_y.device)
    seconds = time.perf_counter() - seconds
    n, delta, tried = len(data.train_y), preset.delta, bounds.uniform_nats(TRIED)
    train_error, test_error = (error_rate(network, *part) for part in (
        (data.train_x, data.train_y), (data.test_x, data.test_y)))
    errors, bits = round(train_error * n), 8 * (len(file) - SEAL)
    weights = sum(p.numel() for p in network.parameters())
    nats, floats = bounds.nats_of(bits) + tried, bounds.nats_of(32 * weights)
    found = {
        "32 bits a weight": (bounds.occam_hoeffding(train_error, n, floats, delta), floats),
        "Hoeffding": (bounds.occam_hoeffding(train_error, n, nats, delta), nats),
        "Catoni": (bounds.catoni(train_error, n, nats, delta), nats),
        "kl": (bounds.occam_kl(train_error, n, nats, delta), nats),
        "binomial": (bounds.occam_binomial(errors, n, nats, delta), nats),
        "test set": (bounds.clopper_pearson(round(test_error * len(data.test_y)), len(data.test_y), delta), 0.0),
    }
    shared = {"train_error": train_error, "test_error": test_error, "bits": bits, "weights": weights,
              "seconds": seconds}
    rows = {f"file, {name}": {"bound": bound, "nats": nats, **shared} for name, (bound, nats) in found.items()}
    rows["file, test set"]["train_error"] = test_error  # the examples of this bound
    first = begun(preset.recipe, data.shape, len(data.classes), NETWORKS).to(data.train_y.device).network
    by_norm = margins.certificate(network, first, data.train_x, data.train_y, delta=delta,
                                  nats=tried + bounds.ranked_nats(preset.recipe.seed))
    rows["file, norms of its weights"] = {
        "bound": by_norm.value, "nats": by_norm.nats, "complexity": by_norm.complexity, "gamma": by_norm.gamma,
        "margin_risk": by_norm.risk, **shared}
    return rows


def _of_a_posterior(preset: LadderPreset, data: Dataset) -> dict[str, dict]:
    """A Gaussian about random weights; one about weights that learned from half the data; and a test of the latter.

    The last is the control: whoever keeps half the data from the prior could as well test on it.
    """
    x, y, n, half = data.train_x, data.train_y, len(data.train_y), len(data.train_y) // 2
    test, rows = (data.test_x, data.test_y), {}

    def certified(name: str, classifier: GaussianClassifier, first: int, began: float) -> None:
        found = gaussian.certificate(classifier, x[first:], y[first:], *test, passes=preset.passes, delta=preset.delta,
                                     nats=bounds.uniform_nats(preset.tried), seed=preset.seed)
        rows[name] = {"bound": found.bound.value, "nats": found.kl, "train_error": found.risk,
                      "test_error": found.test_risk, "draws": found.draws, "seconds": time.perf_counter() - began}

    began = time.perf_counter()
    classifier = _gaussian(data, preset.sigma0, preset.seed)
    gaussian.learn(classifier, x, y, replace(preset.posterior, delta=preset.delta))
    certified("posterior, random prior", classifier, 0, began)
    began = time.perf_counter()
    informed = _gaussian(data, preset.informed_sigma0, preset.seed)
    gaussian.learn(informed, x[:half], y[:half], preset.prior)
    informed.begin_here(preset.informed_sigma0)
    certified("prior from half the data, alone", informed, half, began)
    slow = replace(preset.posterior, delta=preset.delta, lr=preset.posterior.lr / 10)
    gaussian.learn(informed, x, y, slow, n=n - half)
    certified("posterior, prior from half the data", informed, half, began)
    middle = informed_mean(informed, data, preset.seed)
    errors = round(error_rate(middle, x[half:], y[half:]) * (n - half))
    rows["mean of that prior, tested on the other half"] = {
        "bound": bounds.clopper_pearson(errors, n - half, preset.delta), "nats": 0.0,
        "train_error": errors / (n - half), "test_error": error_rate(middle, *test)}
    return rows


def _network(data: Dataset, seed: int) -> torch.nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp(data.shape, len(data.classes)).to(data.train_y.device)


def _gaussian(data: Dataset, sigma0: float, seed: int) -> GaussianClassifier:
    return GaussianClassifier(_network(data, seed), sigma0).to(data.train_y.device)


def informed_mean(classifier: GaussianClassifier, data: Dataset, seed: int) -> torch.nn.Sequential:
    """The network that has the means of the classifier's prior for weights."""
    network = _network(data, seed)
    linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    for layer, given in zip(linear, classifier.gaussians, strict=True):
        layer.weight.data, layer.bias.data = given.mu0[:, :-1].clone(), given.mu0[:, -1].clone()
    return network.requires_grad_(False)


@dataclass(frozen=True)
class DimensionPreset:
    name: str
    data: str
    recipe: Recipe
    d: tuple[int, ...] = (100, 256, 400, 625, 1024, 1600, 2500)
    seeds: tuple[int, ...] = (1, 2, 3)
    delta: float = 0.05
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


WHOLE_LR = 1e-3  # of a network's own weights: those of a subspace take steps of another size
DIMENSION = {
    "cpu": DimensionPreset("cpu", "digits", QUICK, d=(49, 100), seeds=(1,), device="cpu"),
    "two-cores": DimensionPreset("two-cores", "fashion_mnist", Recipe(), device="cpu"),
    "gpu": DimensionPreset("gpu", "fashion_mnist", Recipe(steps=6000, rounded_steps=6000), device="cuda"),
}


@with_threads
def dimension(preset: DimensionPreset) -> Record:
    """The bound over how many numbers are trained: the error falls, the bits rise, and their sum has a least place.

    `whole` has the errors, on test examples too, of the network with all its weights trained as long; `intrinsic` is
    the first d whose accuracy before rounding is nine tenths of its accuracy on the examples that both learn from.
    """
    started, device = time.perf_counter(), pick_device(preset.device)
    data = SETS[preset.data]().to(device)
    rows = {str(d): certified(data, replace(preset.recipe, d=d), preset.seeds, preset.delta) for d in preset.d}
    whole = [_whole(data, replace(preset.recipe, seed=seed)) for seed in preset.seeds]
    accuracy = [1 - mean(row["exact_error"]) for row in rows.values()]
    return Record.new(experiment="pacbayes/dimension", preset=preset, started=started, results={
        "data": data.name, "n": len(data.train_y), "rows": rows,
        "whole": {"train_error": [train for train, _ in whole], "test_error": [test for _, test in whole]},
        "intrinsic": intrinsic_dimension(preset.d, accuracy, full=1 - mean(train for train, _ in whole))})


def _whole(data: Dataset, recipe: Recipe) -> tuple[float, ...]:
    """Training and test error of the recipe's network, no direction being closed to it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = recipe.network(data.shape, len(data.classes)).to(data.train_y.device)
    fit(network, data, recipe, steps=recipe.steps, lr=WHOLE_LR)
    return tuple(error_rate(network, *part) for part in ((data.train_x, data.train_y), (data.test_x, data.test_y)))


def certified(data: Dataset, recipe: Recipe, seeds: tuple[int, ...], delta: float, **networks: Sequence[Build]
              ) -> dict[str, list[float]]:
    """What files of several seeds certify, and what rounding cost; one entry a seed."""
    rows: dict[str, list[float]] = {}
    for seed in progress(seeds, desc=f"{data.name}, d = {recipe.d}", unit="file"):
        learned = learn(data, replace(recipe, seed=seed), **networks)
        found = certificate(learned.file, data, delta=delta, **networks)
        for part, value in (("bound", found.bound.value), ("bits", found.bits), ("train_error", found.train_error),
                            ("test_error", found.test_error), ("exact_error", learned.exact_error)):
            rows.setdefault(part, []).append(value)
    return rows


@dataclass(frozen=True)
class CoveragePreset:
    name: str
    sets: int = 200  # data sets
    n: int = 100  # examples in each
    law: int = 20_000  # examples, all equally likely: so true risks are known exactly
    network: Build = partial(mlp, width=16)
    networks: int = 64  # in the list that is chosen from: 6 bits
    own: int = 400  # examples that each of them has learned from
    delta: float = 0.05
    seed: int = 0
    threads: int | None = 1
    device: str = "cpu"


COVERAGE = {"cpu": CoveragePreset("cpu", sets=20, law=2000), "two-cores": CoveragePreset("two-cores", sets=5000)}


@with_threads
def coverage(preset: CoveragePreset) -> Record:
    """How often bounds fail, where the true risk is known: the best of a list of networks, on many data sets.

    Each network has learned from examples of its own. The best on a data set is chosen by its errors there, and
    bounded with the price of the list, without it, and by its errors alone.
    """
    started, generator = time.perf_counter(), torch.Generator().manual_seed(preset.seed)
    outputs, y = _listed(preset, generator, pick_device(preset.device))
    wrong = outputs != y[:, None]  # examples, networks
    truth = wrong.double().mean(dim=0)
    n, delta = preset.n, preset.delta
    paid = {"paid": bounds.uniform_nats(preset.networks), "not paid": 0.0}
    forms = {"kl": bounds.occam_kl, "Hoeffding": bounds.occam_hoeffding}
    failures = {f"{form}, {price}": 0 for form in forms for price in paid} | {
        "binomial, paid": 0, "binomial, not paid": 0, "errors alone": 0}
    gaps = []
    for _ in progress(range(preset.sets), desc="data sets", unit="set"):
        rows = torch.randint(len(y), (n,), generator=generator)
        errors = wrong[rows].sum(dim=0)
        best = int(errors.argmin())
        k, R = int(errors[best]), float(truth[best])
        for price, nats in paid.items():
            for form, bound in forms.items():
                failures[f"{form}, {price}"] += bound(k / n, n, nats, delta) < R
            failures[f"binomial, {price}"] += bounds.occam_binomial(k, n, nats, delta) < R
        failures["errors alone"] += k / n < R
        gaps.append(bounds.occam_kl(k / n, n, paid["paid"], delta) - R)
    gaps = torch.tensor(gaps)
    return Record.new(experiment="pacbayes/coverage", preset=preset, started=started, results={
        "failures": {name: count / preset.sets for name, count in failures.items()},
        "slack": {"median": float(gaps.median()), "least": float(gaps.min())},
        "risks": {"least": float(truth.min()), "greatest": float(truth.max())}})


def _listed(preset: CoveragePreset, generator: torch.Generator, device: torch.device
            ) -> tuple[torch.Tensor, torch.Tensor]:
    """What each network of the list says to many examples, and what is right."""
    data, said = mnist1d(preset.networks * preset.own, generator, test=preset.law).to(device), []
    for i, (x, y) in enumerate(zip(data.train_x.split(preset.own), data.train_y.split(preset.own), strict=True)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(preset.seed + i)
            network = preset.network(data.shape, len(data.classes)).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(150):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            said.append(network(data.test_x).argmax(dim=1))
    return torch.stack(said, dim=1), data.test_y

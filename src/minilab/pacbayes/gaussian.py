"""PAC-Bayes with a Gaussian over the weights: what is bounded is a classifier that draws its weights anew each time.

    Q = N(mu, diag sigma²),  P = N(mu0, sigma0² I),
    KL(Q || P) = sum_i ln(sigma0 / sigma_i) + (sigma_i² + (mu_i - mu0_i)²) / (2 sigma0²) - 1/2.

Dziugaite and Roy (2017) train mu and sigma on a bound itself; Pérez-Ortiz et al. (2021) on others, with a cross-entropy
that is cut so that it lies in [0, 1]. Notable:

- No weights are drawn. The outputs of a layer of independent Gaussian weights are, given its input, independent
  Gaussians, and they are drawn instead (Kingma et al., 2015). So each example meets weights of its own.
- One pass over n examples is then n independent trials, whose average chance of an error is the risk on them. That the
  chances differ does not matter to Chernoff's bound (Hoeffding, 1963). To it ten passes are as good as 10 n networks,
  where published certificates took hours to draw 150,000.
- That needs a layer that uses a weight once an example. A convolution uses it at every place, and is refused.
- Whatever the prior's mean was learned from is not in the bound: neither in its risk nor in its n.
- sigma0 can be learned if it ends on a list fixed beforehand, c exp(-j / b), and the place j is paid for.

Shapes: B examples, I and O numbers in and out of a layer, C classes.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from minilab.core.train import TrainConfig, TrainLog, train
from minilab.pacbayes.bounds import Certificate, gibbs, quadratic, ranked_nats

WIDEST, PER_E = 0.1, 100  # c and b of the prior's variances sigma0² = c exp(-j / b), as Dziugaite and Roy have them

Objective = Callable[..., Tensor]  # of `bounds`: risk, n, kl and delta, with a gradient


class GaussianLinear(nn.Module):
    """A layer whose weights are independent Gaussians; the posterior begins as the prior."""

    def __init__(self, mean: nn.Linear, sigma: float) -> None:
        super().__init__()
        self.mu = nn.Parameter(_stacked(mean))
        self.log_sigma = nn.Parameter(torch.full_like(self.mu, math.log(sigma)))
        self.register_buffer("mu0", self.mu.detach().clone())

    def forward(self, x: Float[Tensor, "B I"], generator: torch.Generator | None = None) -> Float[Tensor, "B O"]:
        """One draw of the outputs of each example."""
        variance = (2 * self.log_sigma).exp()
        mean = F.linear(x, self.mu[:, :-1], self.mu[:, -1])
        spread = F.linear(x.square(), variance[:, :-1], variance[:, -1]).sqrt()
        return mean + spread * torch.empty_like(mean).normal_(generator=generator)

    def kl(self, log_sigma0: Float[Tensor, ""]) -> Float[Tensor, ""]:
        moved = (2 * self.log_sigma).exp() + (self.mu - self.mu0).square()
        return (log_sigma0 - self.log_sigma + moved / (2 * (2 * log_sigma0).exp()) - 0.5).sum()


class GaussianClassifier(nn.Module):
    """A network whose linear layers draw; its first weights are the prior's mean.

    Raises ValueError for a network with other weights than those of linear layers.
    """

    def __init__(self, network: nn.Sequential, sigma0: float, *, learn_sigma0: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GaussianLinear(layer, sigma0) if isinstance(layer, nn.Linear) else layer
                                    for layer in network)
        self.log_sigma0 = nn.Parameter(torch.tensor(math.log(sigma0)), requires_grad=learn_sigma0)
        for layer in network:
            if not isinstance(layer, nn.Linear) and any(True for _ in layer.parameters()):
                raise ValueError(f"{type(layer).__name__} uses a weight more than once for an example, or is no layer "
                                 "of ours: give an nn.Sequential of linear layers and of others without weights")

    def forward(self, x: Shaped[Tensor, "B *shape"], generator: torch.Generator | None = None
                ) -> Float[Tensor, "B C"]:
        for layer in self.layers:
            x = layer(x, generator) if isinstance(layer, GaussianLinear) else layer(x)
        return x

    def kl(self) -> Float[Tensor, ""]:
        """KL(Q || P) in nats."""
        return sum(layer.kl(self.log_sigma0) for layer in self.gaussians)

    @property
    def gaussians(self) -> list[GaussianLinear]:
        return [layer for layer in self.layers if isinstance(layer, GaussianLinear)]

    @torch.no_grad()
    def begin_here(self, sigma0: float) -> "GaussianClassifier":
        """Make the present means the prior's: what was learned so far is then prior knowledge, and its examples spent.
        """
        self.log_sigma0.fill_(math.log(sigma0))
        for layer in self.gaussians:
            layer.mu0.copy_(layer.mu)
            layer.log_sigma.fill_(math.log(sigma0))
        return self

    @torch.no_grad()
    def settle(self) -> float:
        """Move a learned sigma0 to the next smaller one of the list, and return what its place on it costs, in nats."""
        j = max(1, math.ceil(PER_E * (math.log(WIDEST) - 2 * float(self.log_sigma0.detach()))))
        self.log_sigma0.fill_((math.log(WIDEST) - j / PER_E) / 2)
        return ranked_nats(j)


@dataclass(frozen=True)
class GaussianRecipe:
    """How a posterior is learned."""

    steps: int = 3000
    batch: int = 250
    lr: float = 1e-3
    floor: float = 1e-5  # of a probability: cross-entropy is cut at -ln of it
    objective: Objective | None = quadratic  # None: the risk alone, for a prior
    delta: float = 0.05
    seed: int = 0


def learn(classifier: GaussianClassifier, x: Shaped[Tensor, "N *shape"], y: Int64[Tensor, "N"],
          recipe: GaussianRecipe = GaussianRecipe(), *, n: int | None = None) -> TrainLog:
    """Train mu and sigma in place on a bound of n examples, by default all that are learned from."""
    n, batch = n or len(y), min(recipe.batch, len(y))

    def batches(step: int) -> tuple[Tensor, Tensor, torch.Generator]:
        generator = torch.Generator(y.device).manual_seed((recipe.seed << 32) + step)
        rows = torch.randint(len(y), (batch,), generator=generator, device=y.device)
        return x[rows], y[rows], generator

    def loss(classifier: nn.Module, drawn: tuple[Tensor, Tensor, torch.Generator]) -> Tensor:
        risk = cut_cross_entropy(classifier(drawn[0], drawn[2]), drawn[1], recipe.floor)
        return risk if recipe.objective is None else recipe.objective(risk, n, classifier.kl(), recipe.delta)

    config = TrainConfig(recipe.steps, lr=recipe.lr, weight_decay=0.0, betas=(0.9, 0.999), min_lr_ratio=0.02, clip=None,
                         precision="fp32", replay=True)
    return train(classifier, batches, loss, config)


def cut_cross_entropy(logits: Float[Tensor, "B C"], y: Int64[Tensor, "B"], floor: float) -> Float[Tensor, ""]:
    """The mean of -ln max(p_y, floor) / ln(1 / floor), in [0, 1]."""
    return F.nll_loss(logits.log_softmax(dim=1).clamp(min=math.log(floor)), y) / -math.log(floor)


@dataclass(frozen=True)
class GaussianCertificate:
    """What is certified, and what it is made of."""

    bound: Certificate
    kl: float  # nats
    risk: float  # share of errors, each example with weights of its own
    draws: int
    test_risk: float  # to look at: the bound does without


@torch.no_grad()
def certificate(classifier: GaussianClassifier, x: Shaped[Tensor, "n *shape"], y: Int64[Tensor, "n"],
                test_x: Shaped[Tensor, "M *shape"], test_y: Int64[Tensor, "M"], *, passes: int = 10,
                delta: float = 0.05, delta_draws: float = 0.01, nats: float = 0.0, seed: int = 0
                ) -> GaussianCertificate:
    """What `maurer` says of the drawing classifier, its risk measured in `passes` over the n examples.

    `nats` is what was chosen beside the posterior. Fails with a chance of at most delta + delta_draws.
    """
    generator, n = torch.Generator(y.device).manual_seed(seed), len(y)
    kl = float(copy.deepcopy(classifier).double().kl()) + nats
    risk = sum(_errors(classifier, x, y, generator) for _ in range(passes)) / (passes * n)
    bound = gibbs(risk, passes * n, n, kl, delta, delta_draws)
    guess = 1 - float(y.bincount().max()) / n
    return GaussianCertificate(Certificate(bound, guess), kl, risk, passes * n,
                               _errors(classifier, test_x, test_y, generator) / len(test_y))


def _errors(classifier: GaussianClassifier, x: Tensor, y: Tensor, generator: torch.Generator, *, chunk: int = 5000
            ) -> int:
    """How many of the examples, each with weights of its own, are wrong."""
    return sum(int((classifier(some, generator).argmax(dim=1) != labels).sum())
               for some, labels in zip(x.split(chunk), y.split(chunk), strict=True))


def _stacked(layer: nn.Linear) -> Float[Tensor, "O I1"]:
    """Weights and biases side by side."""
    return torch.cat((layer.weight.detach(), layer.bias.detach()[:, None]), dim=1)

"""What K members are worth together: their ensemble's loss on held-out windows, for every choice of members at once.

Kim, Kotha, Liang and Hashimoto (2025), section 4.1, average logits, which is the geometric mean of the members' laws:

    logits           log p_S(y) = mean_k log p_k(y) - log Z,    Z = sum_y exp(mean_k log p_k(y)) <= 1
    probabilities    p_S(y) = mean_k p_k(y)

Neither loses more than its members do on average: the first since Z <= 1, the second by Jensen. Notable:

- Probabilities need the target's log p of each member and nothing more. Logits need Z, a sum over the vocabulary. We
  hold the K x V log p of a few windows at a time, and average them for all subsets of members in one product.
- L(K) is the mean over all subsets of K members, not over one order in which they were trained: less noise, and a
  second mean over the subsets without one member tells how much that member matters (the jackknife).
- Recipes are compared on the same windows. Their difference varies far less than either loss (`paired_difference`).

Shapes: K members, S subsets, R windows of T tokens and one more, B of them at a time, V vocabulary, n predictions.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

AVERAGES = ("logits", "probabilities")
MOST_MEMBERS = 12  # 4,095 subsets
CELLS = 2**19  # numbers of a product over subsets, tokens and vocabulary at a time: they fit a processor's cache

# What the members say to the same tokens. A model of one member answers with K = 1.
Predict = Callable[[Int[Tensor, "B T"]], Float[Tensor, "K B T V"]]


def log_probs(predict: Predict, windows: Int[Tensor, "R T1"], *, chunk: int = 8
              ) -> Iterator[tuple[Float[Tensor, "K B T V"], Int[Tensor, "B T"]]]:
    """Each member's log p of every next token, in float32, and the tokens that came; `chunk` windows at a time.

    Raises ValueError for windows without a prediction, tokens outside the vocabulary and members that are not finite.
    """
    if windows.dim() != 2 or len(windows) == 0 or windows.shape[1] < 2 or chunk < 1:
        raise ValueError(f"windows of shape {tuple(windows.shape)}, {chunk} at a time: give R windows of T + 1 tokens, "
                         "at least 2, and a positive chunk")
    for part in windows.split(chunk):
        tokens, target = part[:, :-1].long(), part[:, 1:].long()
        with torch.no_grad():
            logits = predict(tokens)
        if logits.dim() != 4 or logits.shape[1:3] != target.shape:
            raise ValueError(f"logits of shape {tuple(logits.shape)} for tokens of shape {tuple(tokens.shape)}: answer "
                             "with K B T V, each member to the same B T")
        if not 0 <= int(part.min()) <= int(part.max()) < logits.shape[3]:
            raise ValueError(f"tokens from {int(part.min())} to {int(part.max())}, but the members know "
                             f"{logits.shape[3]}: evaluate with the tokenizer that they were trained with")
        found = logits.float().log_softmax(dim=-1)
        lost = found.isnan().flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        if lost:
            raise ValueError(f"members {lost} answer NaN: leave out members that diverged")
        yield found, target


def token_log_probs(predict: Predict, windows: Int[Tensor, "R T1"], *, chunk: int = 8) -> Float[Tensor, "K R T"]:
    """Each member's log p of the tokens that came: the members' losses, and all that averaged probabilities need."""
    return torch.cat([_of_target(found, target) for found, target in log_probs(predict, windows, chunk=chunk)], dim=1)


def _of_target(found: Float[Tensor, "K B T V"], target: Int[Tensor, "B T"]) -> Float[Tensor, "K B T"]:
    return found.gather(3, target[None, ..., None].expand(len(found), -1, -1, 1))[..., 0]


# Ensembles.


def all_subsets(K: int) -> Bool[Tensor, "S K"]:
    """Every choice of at least one of K members, the smallest first. Raises ValueError for more than 12 members."""
    if not 1 <= K <= MOST_MEMBERS:
        raise ValueError(f"{K} members have 2^{K} - 1 subsets: give 1 to {MOST_MEMBERS}, or choose some subsets "
                         "yourself and call `subset_losses`")
    rows = torch.arange(1, 2**K)[:, None] >> torch.arange(K) & 1
    return rows[rows.sum(dim=1).argsort(stable=True)].bool()


def subset_losses(predict: Predict, windows: Int[Tensor, "R T1"], subsets: Bool[Tensor, "S K"], *,
                  average: str = "logits", chunk: int = 8) -> Float[Tensor, "S R"]:
    """Each ensemble's mean loss on each window, in nats a token, on the CPU in float64.

    Raises ValueError for an empty subset and if the subsets are not of the members that answer.
    """
    _check_average(average)
    if not subsets.any(dim=1).all():
        raise ValueError("an ensemble of no member: give each row of `subsets` at least one")
    losses = []
    for found, target in log_probs(predict, windows, chunk=chunk):
        if len(found) != subsets.shape[1]:
            raise ValueError(f"{len(found)} members answer, but the subsets are of {subsets.shape[1]}")
        chosen = subsets.to(found.device)
        size = chosen.sum(dim=1)[:, None, None]  # S 1 1
        others, right = ~chosen[:, :, None, None], _of_target(found, target)  # S K 1 1, K B T
        if average == "probabilities":
            loss = size.log() - right.masked_fill(others, -torch.inf).logsumexp(dim=1)  # S B T
        else:
            log_z = log_normalizer(found.flatten(1, 2), chosen / size[:, 0]).unflatten(1, target.shape)
            loss = log_z - right.masked_fill(others, 0.0).sum(dim=1) / size
        losses.append(loss.cpu().double().mean(dim=2))
    return torch.cat(losses, dim=1)


def _check_average(average: str) -> None:
    if average not in AVERAGES:
        raise ValueError(f"average = {average!r}: choose {' or '.join(AVERAGES)}")


def log_normalizer(found: Float[Tensor, "K n V"], weight: Float[Tensor, "S K"]) -> Float[Tensor, "S n"]:
    """log Z = log sum_y exp(sum_k weight_k log p_k(y)) for each subset, a few tokens at a time. Never above 0."""
    found = found.clamp(min=-1e30)  # a token that is ruled out: no weight times -inf would be NaN
    V, parts = found.shape[2], []
    for part in found.split(max(1, CELLS // (len(weight) * V)), dim=1):
        mean = (weight @ part.flatten(1)).unflatten(1, (-1, V))  # S few V
        top = mean.amax(dim=2, keepdim=True)
        parts.append(mean.sub_(top).exp_().sum(dim=2).log_() + top[..., 0])  # logsumexp, in place
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class KCurve:
    """The loss of every ensemble that K members can form, on every window."""

    subsets: Bool[Tensor, "S K"]
    losses: Float[Tensor, "S R"]  # nats a token

    @property
    def mean(self) -> Float[Tensor, "K"]:
        """L(1), ..., L(K): the mean over all subsets of each size."""
        return self._curve(torch.ones(len(self.subsets), dtype=torch.bool))

    @property
    def left_out(self) -> Float[Tensor, "K K1"]:
        """The curve without each member, up to K - 1. Fit these too, and `jackknife_error` gives the fit's error."""
        return torch.stack([self._curve(~has) for has in self.subsets.T])

    @property
    def standard_error(self) -> Float[Tensor, "K1"]:
        """Of L(1), ..., L(K - 1), for other members trained alike. Near K - 1 rather too large than too small."""
        return jackknife_error(self.left_out)

    @property
    def whole(self) -> Float[Tensor, "R"]:
        """All members' loss on each window, for `paired_difference`."""
        return self.losses[self.subsets.all(dim=1)][0]

    def _curve(self, kept: Bool[Tensor, "S"]) -> Float[Tensor, "_"]:
        size, loss = self.subsets.sum(dim=1)[kept], self.losses.mean(dim=1)[kept]
        return torch.stack([loss[size == k].mean() for k in range(1, int(size.max()) + 1)]) if len(size) else loss


def k_curve(predict: Predict, windows: Int[Tensor, "R T1"], members: int, *, average: str = "logits",
            chunk: int = 8) -> KCurve:
    """The losses of all 2^members - 1 ensembles, in one pass over the windows."""
    subsets = all_subsets(members)
    return KCurve(subsets, subset_losses(predict, windows, subsets, average=average, chunk=chunk))


def jackknife_error(left_out: Float[Tensor, "K *n"]) -> Float[Tensor, "*n"]:
    """The standard error of a number from its K values without one member each: those hardly differ, hence K - 1."""
    return left_out.std(dim=0, correction=0) * (len(left_out) - 1) ** 0.5


# Comparing, and other units.


@dataclass(frozen=True)
class Difference:
    """Of two mean losses on the same windows."""

    mean: float
    standard_error: float
    low: float
    high: float


def paired_difference(a: Float[Tensor, "R"], b: Float[Tensor, "Rb"], generator: torch.Generator, *,
                      draws: int = 2000, level: float = 0.95) -> Difference:
    """mean(a - b) and its interval by a bootstrap over windows. It speaks of other text, not of other training runs.

    Raises ValueError unless both have the same windows, at least 2.
    """
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"losses of {len(a)} and of {len(b)} windows: give both on the same windows, at least 2")
    d = (a - b).cpu().double()
    means = d[torch.randint(len(d), (draws, len(d)), generator=generator)].mean(dim=1)
    low, high = means.quantile(means.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return Difference(float(d.mean()), float(means.std()), low, high)


def bits_per_byte(nats: float, *, tokens: int, bytes: int) -> float:
    """A loss in nats a token, over `tokens` that spell `bytes`, as bits a byte: comparable between tokenizers."""
    if tokens < 1 or bytes < 1:
        raise ValueError(f"{tokens} tokens in {bytes} bytes: give the counts of the text that was scored")
    return nats * tokens / bytes / math.log(2)


# Calibration.


@dataclass(frozen=True)
class Calibration:
    """How often a model is right, by how sure it was, in bins of equal width. An empty bin holds NaN."""

    edges: Float[Tensor, "bins1"]
    count: Int[Tensor, "bins"]
    confidence: Float[Tensor, "bins"]  # mean probability of the likeliest token
    accuracy: Float[Tensor, "bins"]

    @property
    def error(self) -> float:
        """Expected calibration error: |confidence - accuracy|, averaged over predictions."""
        gap = (self.confidence - self.accuracy).abs().nan_to_num()
        return float(gap @ self.count.double()) / int(self.count.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence less accuracy: positive where a model is surer than it is right."""
        gap = (self.confidence - self.accuracy).nan_to_num()
        return float(gap @ self.count.double()) / int(self.count.sum())


def top_predictions(predict: Predict, windows: Int[Tensor, "R T1"], *, average: str = "logits", chunk: int = 8
                    ) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """The probability that the members together give to their likeliest token, and whether that token came."""
    _check_average(average)
    confidence, correct = [], []
    for found, target in log_probs(predict, windows, chunk=chunk):
        together = found.mean(dim=0).log_softmax(dim=-1) if average == "logits" else (
            found.logsumexp(dim=0) - math.log(len(found)))
        top = together.max(dim=-1)  # B T
        confidence.append(top.values.exp().flatten().cpu())
        correct.append((top.indices == target).flatten().cpu())
    return torch.cat(confidence), torch.cat(correct)


def calibration(confidence: Float[Tensor, "n"], correct: Bool[Tensor, "nc"], *, bins: int = 15) -> Calibration:
    """The reliability table of n predictions. A bin holds its upper edge; the first holds 0 too.

    The error of a calibrated model is not 0 but of the order of √(bins / n). Raises ValueError for confidences outside
    [0, 1], for no prediction and for no bin.
    """
    if bins < 1 or len(confidence) == 0 or len(confidence) != len(correct):
        raise ValueError(f"{len(confidence)} confidences, {len(correct)} outcomes, {bins} bins: give one outcome to "
                         "each confidence, and at least one bin")
    confidence = confidence.cpu().double()
    if not ((0 <= confidence) & (confidence <= 1 + 1e-6)).all():
        raise ValueError(f"confidences from {float(confidence.min()):g} to {float(confidence.max()):g}: give "
                         "probabilities, not logits")
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = torch.bucketize(confidence, edges[1:-1])
    count = place.bincount(minlength=bins)
    sums = [torch.zeros(bins, dtype=torch.float64).index_add(0, place, x)
            for x in (confidence, correct.cpu().double())]
    return Calibration(edges, count, sums[0] / count, sums[1] / count)

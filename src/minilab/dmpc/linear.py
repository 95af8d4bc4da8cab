"""Why the errors of a one-step model compound: the linear case, where everything can be computed.

The world is s' = M s, and the model M + E. Applied k times it is off by

    (M + E)^k - M^k = sum_{i<k} (M + E)^{k-1-i} E M^i,

to first order in E a sum of k terms, each the error of one step carried on to the end. What becomes of it depends on
M alone: it grows like k while M keeps lengths (a swinging body), exponentially where M stretches (a falling one), and
dies out where M shrinks (a body that comes to rest). A multi-step model, one map a distance k fitted for that distance,
has the error of its own fit at each k and inherits none.

Where does E come from? With enough data and the whole state, least squares finds M, and one step is all that it takes.
What stays is what the model cannot see. `hidden` is the smallest such case, also in closed form: one coordinate of a
rotation, predicted from itself.

Shapes: S numbers in a state, K steps.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def rotation(angle: float, growth: float = 1.0) -> Float[Tensor, "2 2"]:
    """A world of two numbers that turn by `angle` radians a step and grow by a factor."""
    cos, sin = torch.tensor(angle, dtype=torch.float64).cos(), torch.tensor(angle, dtype=torch.float64).sin()
    return growth * torch.stack((torch.stack((cos, -sin)), torch.stack((sin, cos))))


def rolled_error(M: Float[Tensor, "S S"], E: Float[Tensor, "S S"], K: int) -> Float[Tensor, "K"]:
    """The RMS error of the one-step model M + E after k = 1..K steps from states with unit spread.

    For s ~ N(0, I) it is |(M + E)^k - M^k|_F / sqrt(S), the root of the mean over coordinates.
    """
    world = model = torch.eye(len(M), dtype=M.dtype)
    errors = []
    for _ in range(K):
        world, model = M @ world, (M + E) @ model
        errors.append(torch.linalg.matrix_norm(model - world) / len(M) ** 0.5)
    return torch.stack(errors)


def multi_step_error(E: Float[Tensor, "S S"], K: int) -> Float[Tensor, "K"]:
    """The same for K models M^k + E_k, each with an error as large as E: the same at every k."""
    return (torch.linalg.matrix_norm(E) / len(E) ** 0.5).expand(K)


def hidden(angle: float, K: int) -> tuple[Float[Tensor, "K"], Float[Tensor, "K"]]:
    """One coordinate of a rotation is seen. RMS errors after k = 1..K steps: one step rolled, and one map for each k.

    x_t = cos(angle t + phase) with a uniform phase, times sqrt(2), has spread 1 and correlation rho_k = cos(angle k).
    The best linear guess of x_{t+k} is rho_k x_t, with error sqrt(1 - rho_k^2) <= 1. The best single step, rolled, is
    rho_1^k x_t: sqrt(1 - 2 rho_1^k rho_k + rho_1^{2k}), never smaller.
    """
    k = torch.arange(1, K + 1, dtype=torch.float64)
    rho, rolled = (angle * k).cos(), torch.tensor(angle, dtype=torch.float64).cos() ** k
    return (1 - 2 * rolled * rho + rolled.square()).clamp(min=0).sqrt(), (1 - rho.square()).clamp(min=0).sqrt()

"""SIGReg: how far a batch of embeddings is from an isotropic Gaussian, seen along random directions.

Balestriero and LeCun (2025), section 4.2. A law on R^D is N(0, I) if and only if its projection on every direction is
N(0, 1) (Cramér and Wold). So draw M directions, project, and compare each projection with N(0, 1) by the statistic of
Epps and Pulley (1983), the distance between characteristic functions:

    EP_m = N ∫ |phi_hat_m(t) - phi(t)|^2 w(t) dt,    phi_hat_m(t) = mean_n e^{i t h_nm},    phi(t) = w(t) = e^{-t^2/2},

and SIGReg is the mean of EP_m. Notable:

- The integrand is even in t: K knots on [0, t_max] and twice the trapezoid rule do.
- A perfect batch scores not 0 but ∫ w (1 - phi^2), about 1.05, whatever N: N points are never the law itself.
- The statistic is N times a distance. With a weight lam on it, what acts is lam * N: a smaller batch needs a larger lam
  (`carried_over`). Over several processes N is the batch of all of them.
- Gradients are bounded by 8 however far off a point is: no outlier dominates a step.

Shapes: T time steps, N samples, D width, M directions, K knots. * stands for any leading dimensions.
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def quadrature(knots: int = 17, t_max: float = 3.0, *, like: Tensor | None = None
               ) -> tuple[Float[Tensor, "K"], Float[Tensor, "K"], Float[Tensor, "K"]]:
    """Knots t, phi(t), and weights such that sum(weight * f(t)) is ∫ f(t) w(t) dt over [-t_max, t_max] for an even f.

    Of the type and on the device of `like`. Raises ValueError unless `knots` is odd and at least 3, as is the custom.
    """
    if knots < 3 or knots % 2 == 0 or t_max <= 0:
        raise ValueError(f"{knots} knots up to {t_max}: give an odd number of at least 3, and a positive t_max")
    like = torch.empty(0) if like is None else like
    t = torch.linspace(0, t_max, knots, dtype=like.dtype, device=like.device)
    weight = torch.full_like(t, 2 * t_max / (knots - 1))
    weight[0] /= 2
    weight[-1] /= 2
    phi = torch.exp(-t.square() / 2)
    return t, phi, weight * phi


def epps_pulley(h: Float[Tensor, "*T N M"], *, knots: int = 17, t_max: float = 3.0,
                group: "dist.ProcessGroup | None" = None) -> Float[Tensor, "*T M"]:
    """The statistic of each of the M columns of `h`, which hold N numbers each.

    With a `group` the N numbers of every process count as one sample. All must hold equally many.
    """
    t, phi, weight = quadrature(knots, t_max, like=h)
    angle = h[..., None] * t  # *T N M K
    C, S = angle.cos().mean(dim=-3), angle.sin().mean(dim=-3)  # *T M K
    samples = h.shape[-2]
    if group is not None:
        C, S = _Average.apply(torch.stack((C, S)), group)
        samples *= dist.get_world_size(group)
    return samples * (((C - phi).square() + S.square()) @ weight)


def sigreg(z: Float[Tensor, "*T N D"], generator: torch.Generator | None = None, *, directions: int = 1024,
           knots: int = 17, t_max: float = 3.0, group: "dist.ProcessGroup | None" = None, compile: bool = False
           ) -> Float[Tensor, ""]:
    """The mean statistic of `z` along fresh random directions, each time step a batch of its own.

    In float32 at least, whatever autocast says: in 16 bits the phase t * h of a far point is noise. With a `group`, all
    its processes use the directions of the first. With `compile`, in one process, the T N M K phases are never
    written to memory.
    """
    statistic = _compiled() if compile and group is None else epps_pulley
    with torch.autocast(z.device.type, enabled=False):
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        v = random_directions(z.shape[-1], directions, generator, like=z)
        if group is not None:
            dist.broadcast(v, group=group, group_src=0)
        return statistic(z @ v, knots=knots, t_max=t_max, group=group).mean()


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(epps_pulley, dynamic=False)


def random_directions(D: int, M: int, generator: torch.Generator | None = None, *, like: Tensor | None = None
                      ) -> Float[Tensor, "D M"]:
    """M unit vectors, uniform on the sphere. A draw of length zero stays zero instead of becoming NaN."""
    like = torch.empty(0) if like is None else like
    v = torch.empty(D, M, dtype=like.dtype, device=like.device).normal_(generator=generator)
    return F.normalize(v, dim=0)


def carried_over(lam: float, batch: int, new_batch: int) -> float:
    """The weight that presses as hard at `new_batch` as `lam` does at `batch`: lam * batch is what acts."""
    return lam * batch / new_batch


class _Average(torch.autograd.Function):
    """The mean over processes, and of its gradients too.

    Each process then holds the gradient of the shared loss with respect to its own samples, times the number of
    processes, which the averaging of parameters' gradients in data-parallel training divides out again.
    """

    @staticmethod
    def forward(ctx, x: Tensor, group: "dist.ProcessGroup") -> Tensor:
        ctx.group = group
        return _averaged(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _averaged(grad, ctx.group), None


def _averaged(x: Tensor, group: "dist.ProcessGroup") -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group)  # a sum: not every backend has an average
    return x / dist.get_world_size(group)


# What theory says, to hold the above to.


def gradient(h: Float[Tensor, "N M"], *, knots: int = 17, t_max: float = 3.0) -> Float[Tensor, "N M"]:
    """∂EP_m/∂h_nm = 2 ∫ w(t) t [S(t) cos(t h) - (C(t) - phi(t)) sin(t h)] dt, with the C and S of its column.

    No entry exceeds 4 ∫ |t| w(t) dt = 8, since the bracket is at most |phi_hat - phi| <= 2.
    """
    t, phi, weight = quadrature(knots, t_max, like=h)
    cos, sin = torch.cos(h[..., None] * t), torch.sin(h[..., None] * t)  # N M K
    C, S = cos.mean(dim=0), sin.mean(dim=0)  # M K
    return 2 * ((S * cos - (C - phi) * sin) @ (weight * t))


def expected(N: int, mean: float, std: float, *, knots: int = 17, t_max: float = 3.0) -> float:
    """E[EP] of N draws from N(mean, std^2): N times the distance of the two laws, and a floor that N does not change.

    The floor is ∫ w (1 - |psi|^2) for the characteristic function psi drawn from. Collapse is std = 0: no floor.
    """
    t, phi, weight = quadrature(knots, t_max, like=torch.empty(0, dtype=torch.float64))
    size = torch.exp(-(std * t).square() / 2)  # |psi|; its phase is t * mean
    distance = size.square() + phi.square() - 2 * size * phi * torch.cos(t * mean)
    return float(weight @ (N * distance + 1 - size.square()))


def gaussian_distance(mean: float, std: float) -> float:
    """∫ |psi - phi|^2 w dt over all t for N(mean, std^2), in closed form.

    = √(2π) [ 1/√(1 + 2 std²) + 1/√3 - 2 e^{-mean² / (2 (2 + std²))} / √(2 + std²) ]. Cut at t = 3 it is up to 2 % less.
    """
    cross = math.exp(-(mean**2) / (2 * (2 + std**2))) / math.sqrt(2 + std**2)
    return math.sqrt(2 * math.pi) * (1 / math.sqrt(1 + 2 * std**2) + 1 / math.sqrt(3) - 2 * cross)

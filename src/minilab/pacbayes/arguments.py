"""What every bound does with its arguments: look at them once, and compute in double precision.

A formula decorated with `numeric` takes numbers, tensors, or both, which broadcast. It sees float64 tensors on one
device. Only numbers in, a number out; otherwise a tensor. What an argument must be goes by its name:

    risk, q, p           a mean of losses in [0, 1]
    n, m, draws          a count of examples, 1 at least
    nats, kl, c          complexity, never negative; infinite if the prior gives the hypothesis no mass
    delta, delta_draws   a chance of failure strictly between 0 and 1
    lam, alpha, beta     a parameter of a bound: positive, lam below 2
"""

import functools
import inspect
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Real
from torch import Tensor

Number = float | Real[Tensor, "..."]

RULES = {  # names, what holds, what to say
    ("risk", "q", "p"): (lambda x: (0 <= x) & (x <= 1),
                         "a risk is a mean of losses in [0, 1]: divide by the largest possible loss, or clamp it"),
    ("n", "m", "draws"): (lambda x: 1 <= x, "a bound needs at least 1 example: is the set empty?"),
    ("nats", "kl", "c"): (lambda x: 0 <= x, "a complexity in nats is log 1/P(h) or a KL, and never negative"),
    ("delta", "delta_draws"): (lambda x: (0 < x) & (x < 1), "the chance of failure lies strictly between 0 and 1"),
    ("lam",): (lambda x: (0 < x) & (x < 2), "choose it between 0 and 2; `thiemann_lam` is the best"),
    ("alpha", "beta"): (lambda x: 0 < x, "choose a positive number, before you see the examples"),
}


def numeric(formula: Callable) -> Callable:
    """The formula on numbers and tensors alike. Raises ValueError for an argument that breaks the rule of its name."""
    signature = inspect.signature(formula)

    @functools.wraps(formula)
    def on_numbers(*args, **options):
        given = signature.bind(*args, **options)
        given.apply_defaults()
        for name, value in given.arguments.items():
            check(name, value)
        tensors = [value for value in given.arguments.values() if isinstance(value, Tensor)]
        device = next((x.device for x in tensors if x.device.type != "cpu"), torch.device("cpu"))
        result = formula(**{name: _double(value, device) for name, value in given.arguments.items()})
        return result if tensors else result.item()

    return on_numbers


def check(name: str, value: object) -> None:
    """Raises ValueError for a value that breaks the rule of its name, and warns of a complexity without end."""
    if isinstance(value, Tensor) and value.requires_grad and value.device.type != "cpu":
        return  # an objective in training: a look would wait for the device at every step
    for names, (holds, advice) in RULES.items():
        if name in names and not torch.as_tensor(holds(value)).all():
            raise ValueError(f"{name} = {value}: {advice}")
    if name in ("nats", "kl") and torch.as_tensor(value == float("inf")).any():
        warnings.warn("the prior gives this hypothesis no mass: log 1/P(h) is infinite and nothing is bounded. "
                      "A posterior must live where its prior does.", stacklevel=3)


def _double(value: object, device: torch.device) -> object:
    """As a float64 tensor on the device; float32 on Apple's, which has no other. Flags stay what they are."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    if isinstance(value, Tensor):
        return value.to(device, dtype)
    if isinstance(value, bool):
        return value
    return torch.full((), value, dtype=dtype, device=device)  # filled there: a copy could not be captured in a graph

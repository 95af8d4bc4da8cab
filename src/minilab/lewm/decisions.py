"""One decision, from two images to a plan, of LeWM and of its rival with patch tokens, in every way to run it.

The two have the same planner, the same width and depth, and the same images; one has a token a frame and the other P.
They are untrained: time does not depend on what they say.

Shapes: B problems, H blocks ahead, kA numbers in a block; images are h x w.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minilab.core.replay import replayed
from minilab.lewm.baselines.tokens import frozen_tokens
from minilab.lewm.model import LeWM, LeWMConfig
from minilab.lewm.planner import PlanConfig, plan
from minilab.lewm.swift import Swift

LEWM, TOKENS = "LeWM", "patch tokens"
EAGER, GRAPH, SWIFT = "kernel by kernel", "one graph", "16 bits, one graph"


def rivals(config: LeWMConfig, device: torch.device | str, *, seed: int = 0) -> dict[str, LeWM]:
    """The two models, on a device, untrained: one predicts a vector a frame, the other all patches' vectors."""
    torch.manual_seed(seed)
    size = config.vision.image
    lewm = LeWM(config).to(device)
    frames = torch.randint(256, (4, 1, 3, size, size), dtype=torch.uint8).to(device)
    tokens = frozen_tokens(config, config.vision.build().to(device), frames)
    return {name: model.eval().requires_grad_(False) for name, model in ((LEWM, lewm), (TOKENS, tokens))}


@torch.no_grad()
def decision(model: nn.Module, config: PlanConfig, generator: torch.Generator | None, images: UInt8[Tensor, "B 2 3 h w"]
             ) -> Float[Tensor, "B H kA"]:
    """Encode what is seen and what is wanted, and plan from the one to the other."""
    z = model.encode(images)
    return plan(model, z[:, :1], z[:, 1], config, generator)


def deciders(models: dict[str, LeWM], plans: dict[str, PlanConfig], device: torch.device, *, seed: int = 0
             ) -> tuple[dict[str, Callable[[], Tensor]], dict[str, Callable[[], Tensor]]]:
    """Functions that decide once, and those that only encode, as "model, way" of running.

    On a GPU there are three ways: kernel by kernel, replayed as one graph, and that in 16 bits and compiled.
    """
    generator, decide, encode = torch.Generator(device).manual_seed(seed), {}, {}
    for name, model in models.items():
        size = model.config.vision.image
        images = torch.randint(256, (1, 2, 3, size, size), dtype=torch.uint8, device=device, generator=generator)
        ways = {EAGER: model}
        if device.type == "cuda":
            ways |= {GRAPH: model, SWIFT: Swift(model)}
        for way, it in ways.items():
            found = partial(decision, it, plans[name], generator), torch.no_grad()(it.encode)
            if way != EAGER:
                found = replayed(found[0], device, (generator,)), replayed(found[1], device)
            decide[f"{name}, {way}"], encode[f"{name}, {way}"] = (partial(fn, images) for fn in found)
    return decide, encode


def decision_flops(model: LeWM, config: PlanConfig) -> float:
    """Floating-point operations of the products of one decision: two images, and one candidate times their number."""
    model, size = copy.deepcopy(model).to("meta").eval(), model.config.vision.image
    with torch.device("meta"):
        images = torch.zeros(1, 2, 3, size, size, dtype=torch.uint8)
        z, blocks = torch.zeros(1, 1, model.config.latent), torch.zeros(1, config.horizon, model.config.actions)
    encoding = flops_of(lambda: model.encode(images))
    return encoding + config.samples * config.iterations * flops_of(lambda: model.imagine(z, blocks))


def flops_of(fn: Callable[[], object]) -> float:
    """Floating-point operations of a function's matrix products, as torch counts them on the device "meta".

    There attention is the products that it consists of; a processor's own kernel for it would not be counted.
    """
    with FlopCounterMode(display=False) as count:
        fn()
    return float(count.get_total_flops())

"""Fit the models to a set of episodes, each on its own: the proposal, the dynamics, the value.

Shapes: B windows or states in a batch, F steps, S numbers in a state, A in an action.
"""

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from minilab.core.train import TrainConfig, TrainLog, train
from minilab.core.weights import load_weights, save_weights
from minilab.dmpc.data import LICENCE, Episodes, Mixture, Scales, Windows, value_targets
from minilab.dmpc.models import Dynamics, ModelConfig, Proposal, Value
from minilab.dmpc.networks import PAPER, NetworkConfig


@dataclass(frozen=True)
class Recipe:
    """What is learned and for how long. A proposal and a dynamics model of one horizon F."""

    F: int
    proposal: ModelConfig
    dynamics: ModelConfig
    steps: int = 6000  # of each of the two
    value_steps: int = 2000
    batch: int = 256
    lr: float = 5e-4
    warmup: int = 200
    ema: float = 0.99
    discount: float = 0.97
    fall_cost: float = 0.0
    compile: bool = False

    def looking(self, F: int) -> "Recipe":
        """The same with blocks of F steps."""
        return replace(self, F=F, proposal=replace(self.proposal, span=F), dynamics=replace(self.dynamics, span=F))


def small(F: int = 16, *, width: int = 384, layers: int = 2, **options) -> Recipe:
    """For two cores: residual MLPs, few steps of sampling."""
    network = NetworkConfig("mlp", width, layers)
    return Recipe(F, proposal=ModelConfig(F, network, steps=10, eta=1.0, clip=1.0),
                  dynamics=ModelConfig(F, network, steps=5, eta=0.0, clip=6.0), **options)


def papers(F: int = 32, **options) -> Recipe:
    """For a GPU: the size and the sampling of the paper, as two independent ports of it agree (our training)."""
    recipe = Recipe(F, proposal=ModelConfig(F, PAPER, levels=32, steps=32, eta=1.0, clip=1.0),
                    dynamics=ModelConfig(F, PAPER, levels=32, steps=10, eta=0.0, clip=6.0), lr=1e-4, warmup=500)
    return replace(recipe, **options)


@dataclass
class Models:
    """What a recipe came to."""

    task: str
    recipe: Recipe
    proposal: Proposal
    dynamics: Dynamics
    value: Value

    def to(self, device: torch.device | str) -> "Models":
        return replace(self, **{part: getattr(self, part).to(device) for part in ("proposal", "dynamics", "value")})

    def parts(self) -> dict[str, nn.Module]:
        return {"proposal": self.proposal, "dynamics": self.dynamics, "value": self.value}


def learn(episodes: Episodes, recipe: Recipe, *, seed: int = 0, device: torch.device | str = "cpu",
          folder: Path | None = None) -> Models:
    """Train all three. With a `folder`, checkpoints go there, and a call that was interrupted goes on from them."""
    episodes = episodes.to(device)
    windows = Windows(episodes, recipe.F)
    scales = Scales.of(windows)
    S, A = episodes.states.shape[-1], episodes.actions.shape[-1]
    torch.manual_seed(seed)
    proposal, dynamics, value = (part.to(device) for part in blank(recipe, S, A, scales))
    for name, model in (("proposal", proposal), ("dynamics", dynamics)):
        fit(model, windows, recipe, seed=seed, checkpoint=folder and folder / f"{name}.safetensors")
    fit_value(value, episodes, recipe, seed=seed, checkpoint=folder and folder / "value.safetensors")
    return Models(episodes.task, recipe, *(m.eval().requires_grad_(False) for m in (proposal, dynamics, value)))


def fit(model: nn.Module, windows: Windows | Mixture, recipe: Recipe, *, seed: int = 0, steps: int | None = None,
        checkpoint: Path | None = None) -> TrainLog:
    """Train a model in place that has a `training_loss` of windows as long as its `config.span`."""
    span, device = model.config.span, windows.index.device
    windows = windows if windows.F == span else Windows(windows.episodes, span)

    def loss(model: nn.Module, drawn: tuple) -> Tensor:
        return model.training_loss(*drawn)

    def batches(step: int) -> tuple:
        generator = _generator(device, seed, step)
        return windows.draw(recipe.batch, generator), generator

    return train(model.requires_grad_(True), batches, loss, _config(recipe, steps or recipe.steps, checkpoint))


def fit_value(value: Value, episodes: Episodes, recipe: Recipe, *, seed: int = 0, checkpoint: Path | None = None
              ) -> TrainLog:
    """Train a value in place on discounted returns to go."""
    states, returns = value_targets(episodes, recipe.discount, fall_cost=recipe.fall_cost)
    value.fit_unit(returns)

    def batches(step: int) -> tuple:
        generator = _generator(states.device, seed, step)
        which = torch.randint(len(states), (recipe.batch,), generator=generator, device=states.device)
        return states[which], returns[which]

    return train(value.requires_grad_(True), batches, lambda model, batch: model.training_loss(*batch),
                 _config(recipe, recipe.value_steps, checkpoint))


def _generator(device: torch.device, seed: int, step: int) -> torch.Generator:
    """The same draws for the same step, so that a resumed run sees the same batches."""
    return torch.Generator(device).manual_seed((seed << 32) + step)


def _config(recipe: Recipe, steps: int, checkpoint: Path | None) -> TrainConfig:
    return TrainConfig(steps=steps, lr=recipe.lr, weight_decay=1e-4, betas=(0.9, 0.999), min_lr_ratio=0.05, clip=1.0,
                       warmup=min(recipe.warmup, steps), ema=recipe.ema, checkpoint=checkpoint, precision="fp32",
                       replay=True)


def save_models(models: Models, path: Path | str, *, what: str, how_made: str, dtype: str = "bf16") -> Path:
    """Write all three as one file with a card."""
    parts = models.parts().items()
    state = {f"{name}.{key}": tensor for name, part in parts for key, tensor in part.state_dict().items()}
    card = {"what": what, "how_made": how_made, "licence": LICENCE, "task": models.task,
            "dims": [models.dynamics.X, models.proposal.X], "recipe": dataclasses.asdict(models.recipe)}
    return save_weights(state, path, card=card, dtype=dtype)


def load_models(path: Path | str, *, device: torch.device | str = "cpu") -> Models:
    """Read what `save_models` wrote, by path or by the name of an asset, once its hash is right."""
    state, card = load_weights(path, device=device)
    recipe, (S, A) = _recipe(card["recipe"]), card["dims"]
    scales = Scales(torch.zeros(S), torch.ones(S), torch.ones(recipe.F, S))  # the file has the real ones
    models = Models(card["task"], recipe, *blank(recipe, S, A, scales))
    for name, part in models.parts().items():
        own = {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
        part.load_state_dict(own)
        part.eval().requires_grad_(False)
    return models.to(device)


def blank(recipe: Recipe, S: int, A: int, scales: Scales) -> tuple[Proposal, Dynamics, Value]:
    """The three networks before they learn."""
    return Proposal(recipe.proposal, S, A, scales), Dynamics(recipe.dynamics, S, A, scales), Value(S, scales)


def _recipe(fields: dict) -> Recipe:
    def model(f: dict) -> ModelConfig:
        return ModelConfig(**{**f, "network": NetworkConfig(**f["network"]), "hidden": tuple(f["hidden"])})

    return Recipe(**{**fields, "proposal": model(fields["proposal"]), "dynamics": model(fields["dynamics"])})



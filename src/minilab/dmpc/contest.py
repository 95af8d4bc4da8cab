"""D-MPC and its rivals on the same data, with the same networks and as many steps of training, ready to act."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from minilab.dmpc.agent import Planner, dmpc
from minilab.dmpc.baselines import ablations, cloning, decision_diffuser, diffuser, mbop
from minilab.dmpc.baselines.autoregressive import AutoRegressive, learn_autoregressive
from minilab.dmpc.baselines.common import learn_dynamics, learn_proposal
from minilab.dmpc.data import Windows
from minilab.dmpc.learn import Models
from minilab.dmpc.models import Dynamics, ModelConfig, Proposal
from minilab.dmpc.rollout import Controller
from minilab.dmpc.study import Setting, key, place
from minilab.planning.rank import Objective, Predict, Propose

Contender = Callable[[], Controller]  # trains what it needs when it is called


class Contest:
    """Everything that acts for one setting and one seed of training; each is trained once, when it is asked for."""

    def __init__(self, setting: Setting, models: Models, seed: int) -> None:
        self.setting, self.models, self.seed = setting, models, seed
        self.device = models.value.mean.device
        self.objective = setting.objective(models)
        self.generators = [torch.Generator(self.device).manual_seed(seed) for _ in range(2)]  # to propose, to predict
        self.windows = Windows(setting.data()[0].to(self.device), setting.recipe.F)

    def systems(self) -> dict[str, Contender]:
        """The rows of the table: imitation, the planners of others, and D-MPC."""
        every, n, seed, proposal = self.setting.every, self.setting.n, self.seed, self.models.proposal
        return {
            "behavior cloning": lambda: cloning.imitation(self.clone(), seed=seed),
            "diffusion policy": lambda: cloning.imitation(proposal, every=every, seed=seed),
            "MBOP": lambda: mbop.Mbop(self.clone(), self.members(), self.objective, F=self.setting.recipe.F, n=n,
                                      seed=seed),
            "Diffuser": lambda: self.guided(),
            "Decision Diffuser": lambda: decision_diffuser.decision_diffuser(self.decision(), every=every, seed=seed),
            "D-MPC": lambda: dmpc(self.models, self.objective, n=n, every=every, seed=seed)}

    def guided(self, joint: diffuser.Joint | None = None, objective: Objective | None = None) -> Controller:
        """Diffuser under this contest's objective or another, guided in units of the objective's spread."""
        objective = objective or self.objective
        guide = diffuser.Guide(unit=max(diffuser.spread(objective, self.windows), 1e-3))
        return diffuser.diffuser(joint or self.joint(), objective, n=self.setting.n, guide=guide,
                                 every=self.setting.every, seed=self.seed)

    def planner(self, propose: Propose, predict: Predict) -> Planner:
        """D-MPC's planner with parts of `proposals` and `predictors`."""
        return Planner(propose, predict, self.objective, n=self.setting.n, every=self.setting.every, device=self.device,
                       generators=self.generators)

    def proposals(self) -> dict[str, Callable[[], Propose]]:
        """Other ways to propose, D-MPC's own first."""
        recipe, generator = self.setting.recipe, self.generators[0]
        F, A = recipe.F, self.models.proposal.X

        def gaussian() -> Propose:
            mean = self.proposal(replace(recipe.proposal, diffusion=False))
            return ablations.gaussian(mean, ablations.residual_spread(mean, self.windows), generator)

        def single() -> Propose:
            proposal = self.proposal(replace(recipe.proposal, span=1))
            dynamics = self.dynamics(replace(recipe.dynamics, span=1, diffusion=False))
            return ablations.step_by_step(proposal, dynamics, F, generator)

        return {"multi-step diffusion": lambda: ablations.from_proposal(self.models.proposal, generator),
                "single-step diffusion": single,
                "mean and noise": gaussian,
                "uniform": lambda: ablations.uniform(F, A, generator)}

    def predictors(self, *, autoregressive: bool = True) -> dict[str, Callable[[], Predict]]:
        """Other models of the dynamics, D-MPC's own first."""
        generator = self.generators[1]
        found = {name: (lambda c=config: ablations.from_dynamics(self.dynamics(c), generator))
                 for name, config in kinds(self.setting.recipe.dynamics).items()}
        if autoregressive:
            found["auto-regressive"] = lambda: ablations.from_dynamics(self.autoregressive(), generator)
        return found

    def clone(self) -> Proposal:
        return cloning.learn_cloning(*self._given, **self._options("clone"))

    def proposal(self, config: ModelConfig) -> Proposal:
        if config == self.setting.recipe.proposal:
            return self.models.proposal
        return learn_proposal(*self._given, config, **self._options("proposal", config))

    def dynamics(self, config: ModelConfig) -> Dynamics:
        if config == self.setting.recipe.dynamics:
            return self.models.dynamics
        return learn_dynamics(*self._given, config, **self._options("dynamics", config))

    def members(self, n: int = 3) -> list[Dynamics]:
        """MBOP's ensemble: single-step regressions that differ in their seed."""
        config = replace(self.setting.recipe.dynamics, span=1, diffusion=False)
        return [learn_dynamics(*self._given, config, **self._options("dynamics", config, seed=1000 * i + self.seed))
                for i in range(n)]

    def autoregressive(self) -> AutoRegressive:
        return learn_autoregressive(*self._given, **self._options("autoregressive"))

    def joint(self) -> diffuser.Joint:
        return diffuser.learn_diffuser(*self._given, **self._options("joint"))

    def decision(self) -> decision_diffuser.StateDiffusion:
        return decision_diffuser.learn_decision_diffuser(*self._given, self.objective, **self._options("decision"))

    @property
    def _given(self) -> tuple:
        return self.setting.data()[0], self.setting.recipe

    def _options(self, name: str, config: ModelConfig | None = None, *, seed: int | None = None) -> dict:
        seed = self.seed if seed is None else seed
        folder: Path = place({**key(self.setting, seed), "part": name, "config": config})
        return {"seed": seed, "device": self.device, "checkpoint": folder / f"{name}.safetensors"}


def kinds(dynamics: ModelConfig) -> dict[str, ModelConfig]:
    """One network as diffusion and as regression, of F steps at once and of one; D-MPC's own first."""
    return {f"{span} {law}": replace(dynamics, span=1 if span == "single-step" else dynamics.span,
                                     diffusion=law == "diffusion")
            for span in ("multi-step", "single-step") for law in ("diffusion", "regression")}

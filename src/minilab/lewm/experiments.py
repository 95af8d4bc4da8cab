"""The experiments of chapter 3, by name."""

from minilab.core.records import Experiment
from minilab.lewm import experiments_learn, experiments_look, experiments_plan, ship

EXPERIMENTS = {
    "models": Experiment(ship.models, ship.MODELS),
    "collapse": Experiment(experiments_learn.collapse, experiments_learn.COLLAPSE),
    "knobs": Experiment(experiments_learn.knobs, experiments_learn.KNOBS),
    "success": Experiment(experiments_plan.success, experiments_plan.SUCCESS),
    "planners": Experiment(experiments_plan.planners, experiments_plan.PLANNERS),
    "probes": Experiment(experiments_look.probes, experiments_look.PROBES),
    "surprise": Experiment(experiments_look.surprise, experiments_look.SURPRISE),
    "shape": Experiment(experiments_look.shape, experiments_look.SHAPE),
}

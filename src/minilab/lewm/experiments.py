"""The experiments of chapter 3, by name."""

from minilab.core.records import Experiment
from minilab.lewm import (
    experiments_diet,
    experiments_learn,
    experiments_look,
    experiments_plan,
    experiments_reach,
    experiments_speed,
    experiments_suspects,
    ship,
)

EXPERIMENTS = {
    "models": Experiment(ship.models, ship.MODELS),
    "collapse": Experiment(experiments_learn.collapse, experiments_learn.COLLAPSE),
    "knobs": Experiment(experiments_learn.knobs, experiments_learn.KNOBS),
    "success": Experiment(experiments_plan.success, experiments_plan.SUCCESS),
    "planners": Experiment(experiments_plan.planners, experiments_plan.PLANNERS),
    "crossing": Experiment(experiments_reach.crossing, experiments_reach.CROSSING),
    "suspects": Experiment(experiments_suspects.suspects, experiments_suspects.SUSPECTS),
    "diet": Experiment(experiments_diet.diet, experiments_diet.DIET),
    "recordings": Experiment(experiments_diet.recordings, experiments_diet.RECORDINGS),
    "probes": Experiment(experiments_look.probes, experiments_look.PROBES),
    "surprise": Experiment(experiments_look.surprise, experiments_look.SURPRISE),
    "planning_speed": Experiment(experiments_speed.planning_speed, experiments_speed.PLANNING_SPEED),
    "training_speed": Experiment(experiments_speed.training_speed, experiments_speed.TRAINING_SPEED),
    "sigreg_cost": Experiment(experiments_speed.sigreg_cost, experiments_speed.SIGREG_COST),
    "shape": Experiment(experiments_look.shape, experiments_look.SHAPE),
}

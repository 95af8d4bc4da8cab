"""The experiments of chapter 4, by name."""

from minilab.core.records import Experiment
from minilab.pacbayes import (
    experiments_certify,
    experiments_compare,
    experiments_language,
    experiments_phenomena,
    experiments_speed,
)

EXPERIMENTS = {
    "ladder": Experiment(experiments_certify.ladder, experiments_certify.LADDER),
    "dimension": Experiment(experiments_certify.dimension, experiments_certify.DIMENSION),
    "coverage": Experiment(experiments_certify.coverage, experiments_certify.COVERAGE),
    "width": Experiment(experiments_compare.width, experiments_compare.WIDTH),
    "projections": Experiment(experiments_compare.projections, experiments_compare.PROJECTED),
    "structure": Experiment(experiments_compare.structure, experiments_compare.STRUCTURE),
    "choose": Experiment(experiments_compare.choose, experiments_compare.CHOOSE),
    "language": Experiment(experiments_language.language, experiments_language.LANGUAGE),
    "prequential": Experiment(experiments_language.prequential, experiments_language.PREQUENTIAL),
    "phenomena": Experiment(experiments_phenomena.phenomena, experiments_phenomena.PHENOMENA),
    "speed": Experiment(experiments_speed.speed, experiments_speed.SPEED),
}

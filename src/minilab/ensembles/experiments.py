"""The experiments of chapter 5, by name."""

from minilab.core.records import Experiment
from minilab.ensembles import (
    experiments_copying,
    experiments_data,
    experiments_extras,
    experiments_members,
    experiments_size,
    experiments_speed,
    experiments_teach,
)
from minilab.ensembles.runs import dry_run

EXPERIMENTS = {
    "epochs": Experiment(experiments_size.epochs, experiments_size.EPOCHS,
              lambda preset: dry_run(experiments_size.epochs_runs(preset))),
    "decay": Experiment(experiments_size.decay, experiments_size.DECAY,
             lambda preset: dry_run(experiments_size.decay_runs(preset))),
    "sizes": Experiment(experiments_size.sizes, experiments_size.SIZES,
             lambda preset: dry_run(experiments_size.sizes_runs(preset))),
    "together": Experiment(experiments_members.together, experiments_members.MEMBERS,
                           lambda preset: dry_run(experiments_members.together_runs(preset))),
    "data": Experiment(experiments_data.data, experiments_data.DATA),
    "joint": Experiment(experiments_members.joint, experiments_members.JOINT),
    "distill": Experiment(experiments_teach.distill, experiments_teach.DISTILL),
    "downstream": Experiment(experiments_teach.downstream, experiments_teach.DOWNSTREAM),
    "continued": Experiment(experiments_teach.continued, experiments_teach.CONTINUED),
    "copying": Experiment(experiments_copying.copying, experiments_copying.COPYING),
    "extras": Experiment(experiments_extras.extras, experiments_extras.EXTRAS),
    "speed": Experiment(experiments_speed.speed, experiments_speed.SPEED),
}

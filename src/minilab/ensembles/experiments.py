"""The experiments of chapter 5, by name, and the dry runs of those that keep what they train."""

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
from minilab.ensembles.recipes import Place
from minilab.ensembles.runs import Stage, Task, dry_run
from minilab.ensembles.study import runs_of


def _members(task: Task, place: Place, K: int) -> Stage:
    """What `experiments_members.ensemble` asks for."""
    return Stage(runs_of(task, [place], range(K)), keep=True)


def _distill(preset: experiments_teach.DistillPreset) -> str:
    task = preset.study.task(preset.size)
    return dry_run([_members(task, preset.single, 1), _members(task, preset.teacher, preset.K)],
                   then="students are not kept: every run trains them")


def _downstream(preset: experiments_teach.DownstreamPreset) -> str:
    task = preset.study.task(preset.size)
    return dry_run([_members(task, preset.standard, 1), _members(task, preset.single, 1),
                    _members(task, preset.members, preset.K)])


def _continued(preset: experiments_teach.ContinuedPreset) -> str:
    task = preset.study.task(preset.size)
    new = Task(experiments_teach.new_domain(preset), task.model, task.batch, task.precision)
    return dry_run([_members(task, preset.base, preset.K), _members(new, preset.base, 1)],
                   then="what goes on from the base model is not kept: every run trains it")


EXPERIMENTS = {
    "epochs": Experiment(experiments_size.epochs, experiments_size.EPOCHS,
                         lambda preset: dry_run([Stage(experiments_size.epochs_runs(preset))])),
    "decay": Experiment(experiments_size.decay, experiments_size.DECAY,
                        lambda preset: dry_run([Stage(experiments_size.decay_runs(preset))])),
    "sizes": Experiment(experiments_size.sizes, experiments_size.SIZES, experiments_size.sizes_ahead),
    "together": Experiment(experiments_members.together, experiments_members.MEMBERS,
                           lambda preset: dry_run([Stage(experiments_members.together_runs(preset), keep=True)])),
    "data": Experiment(experiments_data.data, experiments_data.DATA, experiments_data.data_ahead),
    "joint": Experiment(experiments_members.joint, experiments_members.JOINT, experiments_members.joint_ahead),
    "distill": Experiment(experiments_teach.distill, experiments_teach.DISTILL, _distill),
    "downstream": Experiment(experiments_teach.downstream, experiments_teach.DOWNSTREAM, _downstream),
    "continued": Experiment(experiments_teach.continued, experiments_teach.CONTINUED, _continued),
    "copying": Experiment(experiments_copying.copying, experiments_copying.COPYING),
    "extras": Experiment(experiments_extras.extras, experiments_extras.EXTRAS, experiments_extras.extras_ahead),
    "speed": Experiment(experiments_speed.speed, experiments_speed.SPEED),
}

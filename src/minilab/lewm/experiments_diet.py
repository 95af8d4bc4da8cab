"""What the recordings show, and how many there are: the same model, learned from others, tried on the same goals."""

import time
from dataclasses import dataclass, replace

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.lewm import model
from minilab.lewm.experiments_plan import PUSHT, SUCCESS, by_case, imagination, methods
from minilab.lewm.experiments_suspects import reading
from minilab.lewm.oracle import learn_reader
from minilab.lewm.study import QUICK, Ground, Setting, share


@dataclass(frozen=True)
class DietPreset:
    name: str
    setting: Setting  # whose policy's held-out episodes all are tried and read on
    policies: tuple[str, ...] = ("mixed", "push", "half", "wavering", "weak")
    methods: tuple[str, ...] = ("cem", "icem")
    pictures: int = 20_000  # that the reader of places learns from
    reader_steps: int = 1500
    clips: int = 4000  # of which the imagined end is read
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


_few = replace(SUCCESS["two-cores"].settings[1], tasks=4, budget=10, plan=QUICK.plan, learning=QUICK.learning)
DIET = {
    "cpu": DietPreset("cpu", replace(_few, recipe=replace(_few.recipe, episodes=60)), policies=("mixed", "wavering"),
                      methods=("icem",), pictures=500, reader_steps=20, clips=100, device="cpu"),
    "two-cores": DietPreset("two-cores", SUCCESS["two-cores"].settings[1], device="cpu"),
    "gpu": DietPreset("gpu", SUCCESS["gpu"].settings[1], device="cuda"),
}


@with_threads
def diet(preset: DietPreset) -> Record:
    """Goals reached by models that learned from several policies' episodes, and how far off what they imagine is.

    `reading` has errors of the place that is read off a latent, as in `suspects`: one for each training.
    """
    started, device, setting = time.perf_counter(), pick_device(preset.device), preset.setting
    usual, rows = Ground(setting, device), {}
    for policy in preset.policies:
        ground = Ground(replace(setting, recipe=replace(setting.recipe, policy=policy)), device)
        ground.unseen = usual.unseen  # all are tried and read on the same
        row = rows[policy] = {"reading": {}}
        trained = [ground.trained("sigreg", seed) for seed in setting.seeds]
        for method in preset.methods:
            plan = replace(setting.plan, method=method)
            reached = [ground.reached(ground.agent(t, seed, plan), seed)
                       for t, seed in zip(trained, setting.seeds, strict=True)]
            row[method] = share(reached) | by_case(ground, reached)
        for t, seed in zip(trained, setting.seeds, strict=True):
            reader = learn_reader(t.model, ground.clips_of(ground.seen, 1), frames=preset.pictures,
                                  steps=preset.reader_steps, seed=seed)
            for name, off in reading(t.model, reader, ground, preset.clips, seed).items():
                row["reading"].setdefault(name, []).append(off)
    return Record.new(experiment="lewm/diet", preset=preset, started=started,
                      results={"world": setting.world.name, "policies": rows})


@dataclass(frozen=True)
class RecordingsPreset:
    name: str
    setting: Setting  # of a world that can be mirrored; all are tried on its held-out episodes
    episodes: tuple[int, ...]  # that are learned from, a set each
    ways: tuple[str, ...] = ("as recorded", "mirrored")  # of `MIRRORED`
    methods: tuple[str, ...] = ("cem", "the best of these")  # of `experiments_plan.methods`
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


# The paper's predictor and heads behind `compact`'s encoder.
LARGER = model.compact(10, **{part: getattr(model.published(), part) for part in (
    "latent", "width", "depth", "heads", "head_dim", "hidden", "head_hidden")})
MIRRORED = {"as recorded": False, "mirrored": True}
RECORDINGS = {
    "cpu": RecordingsPreset("cpu", DIET["cpu"].setting, (30, 60), device="cpu"),
    "two-cores": RecordingsPreset("two-cores", SUCCESS["two-cores"].settings[1], (60, 300, 1000), device="cpu"),
    # As recorded, these are the trainings of `success` and `planners`.
    "gpu-pusht": RecordingsPreset("gpu-pusht", PUSHT, (3000,), ("mirrored",), device="cuda"),
    "gpu-pusht-larger": RecordingsPreset("gpu-pusht-larger", replace(PUSHT, config=LARGER), (3000,), ("mirrored",),
                                         device="cuda"),
}


@with_threads
def recordings(preset: RecordingsPreset) -> Record:
    """Models of few and of many recordings, as they were made and turned and mirrored: what they imagine and reach."""
    started, device, setting = time.perf_counter(), pick_device(preset.device), preset.setting
    usual, rows = Ground(setting, device), {}
    for episodes in preset.episodes:
        recipe = setting.recipe
        if episodes != recipe.episodes:  # other ones, or what is held out might be among them
            recipe = replace(recipe, episodes=episodes, seed=recipe.seed + 1)
        for how in preset.ways:
            ground = Ground(replace(setting, recipe=recipe, mirrored=MIRRORED[how]), device)
            ground.unseen = usual.unseen
            trained = [ground.trained("sigreg", seed) for seed in setting.seeds]
            row = rows.setdefault(str(episodes), {})[how] = imagination(ground, trained)
            for name in preset.methods:
                plan = methods(setting.plan)[name]
                reached = [ground.reached(ground.agent(t, seed, plan), seed)
                           for t, seed in zip(trained, setting.seeds, strict=True)]
                row[name] = share(reached) | by_case(ground, reached)
    return Record.new(experiment="lewm/recordings", preset=preset, started=started,
                      results={"world": setting.world.name, "episodes": rows})

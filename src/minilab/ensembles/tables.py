"""What the records of chapter 5 say, in lines of text: one size a line, one place a line, one law a line."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from minilab.core.records import Record
from minilab.ensembles.copying import COPIES
from minilab.ensembles.limits import Efficiency, data_efficiency
from minilab.ensembles.recipes import Place, runs_at
from minilab.ensembles.runs import Data, Task
from minilab.ensembles.scaling import Interval, fit_power_law, profile_interval
from minilab.ensembles.study import named, place_of
from minilab.ensembles.tables_data import savings
from minilab.nn.transformer import TransformerConfig

Results = Mapping[str, Any]


def epochs(results: Results) -> str:
    """Of `ensembles/epochs`: the loss held out by epochs, where it is least, and the training loss."""
    lines = []
    for decay, row in sorted(results["rows"].items(), key=lambda item: float(item[0])):
        counts = sorted(row, key=int)
        least = min(counts, key=lambda n: row[n]["loss"])
        lines += [f"decay {decay}: " + ", ".join(f"{n}: {row[n]['loss']:.2f}" for n in counts),
                  f"   least at {least}: {_span(row[least]['losses'])}; in training {row[least]['train']:.2f}, "
                  f"after {counts[-1]} {row[counts[-1]]['train']:.2f}"]
    return "\n".join(lines)


def decays(results: Results, at: Sequence[str] = ("0", "0.1", "0.4")) -> str:
    """Of `ensembles/decay`: where the loss is least, by their mean and for each seed, and losses beside it."""
    lines = ["size, epochs at a rate: the best decay (of each seed), its memory in epochs;",
             f"   losses held out at {', '.join(at)} and the best; in training"]
    for size in map(named, results["parameters"]):
        rows = results["rows"][size]
        best = min(rows, key=lambda decay: rows[decay]["loss"])
        row = rows[best]
        each = [min(rows, key=lambda decay: rows[decay]["losses"][k]) for k in range(len(row["losses"]))]
        held, trained = (" ".join(f"{rows[d][kind]:.{digits}f}" for d in (*at, best))
                         for kind, digits in (("loss", 3), ("train", 2)))
        lines.append(f"{size:>5}, {row['epochs']} at {row['lr']:<5}: {best} ({' '.join(each)}), "
                     f"{row['time_scale']:.2f}; {held}; {trained}")
    return "\n".join(lines)


def places(results: Results, recipe: str) -> str:
    """Of `ensembles/sizes`: where the search of a recipe ended at each size, and how often its own seed came out best.
    """
    rows, lines = results["recipes"][recipe]["sizes"], [f"{'':>5}  epochs   rate  decay  memory   loss  (seeds)  tried"]
    for size in map(named, results["parameters"]):
        row = rows[size]
        marks = "".join(f", {axis} at the grid's end" for axis in row["at_edge"])
        lines.append(f"{size:>5}  {row['epochs']:6} {row['lr']:6}  {row['weight_decay']:5}  {row['time_scale']:6.1f}  "
                     f"{row['loss']:.3f}  ({min(row['losses']):.3f} to {max(row['losses']):.3f})  {len(row['tried'])}"
                     f"{marks if row['certified'] else marks + ', cut short'}")
    first = sum(row["losses"][0] == min(row["losses"]) for row in rows.values())
    return "\n".join([*lines, f"the seed that searched is the best at {first} of {len(rows)} sizes"])


def losses_of(results: Results, recipe: str) -> Float[np.ndarray, "n S"]:
    """Of `ensembles/sizes`: the losses of S seeds at n sizes, from small to large."""
    return np.array([results["recipes"][recipe]["sizes"][named(n)]["losses"] for n in results["parameters"]])


def laws(x: Sequence[float] | Float[np.ndarray, "n"], losses: Float[np.ndarray, "n S"]) -> str:
    """The law through the means of S seeds, with an exponent of one and with a free one.

    Intervals are of 95 percent: one judged by what the fit left over, one by the noise of a mean, which the seeds of
    all sizes tell together. Raises ValueError for fewer than two seeds.
    """
    if losses.shape[1] < 2:
        raise ValueError(f"{losses.shape[1]} seed a size says nothing of the noise: give two or more")
    noise, lines = float((losses.var(axis=1, ddof=1).mean() / losses.shape[1]) ** 0.5), []
    for alpha in (1.0, None):
        fit = fit_power_law(x, losses.mean(axis=1), alpha=alpha)
        misfit, seeds = _told(profile_interval(fit)), _told(profile_interval(fit, noise=noise))
        lines.append(f"exponent {fit.law.alpha:.2f}{'' if alpha else ' (free)'}: E {fit.law.E:.3f}, off by "
                     f"{np.abs(fit.residuals).max():.3f}; {misfit} by misfit, {seeds} by seeds")
    exponent = _told(profile_interval(fit, "alpha", noise=noise))
    return "\n".join([*lines, f"a mean is good to {noise:.3f}, the exponent from {exponent} by seeds"])


def together(results: Results) -> str:
    """Of `ensembles/together`: each place, the best single one first. Errors are those of other members; averaged
    probabilities are ahead from the number of members on at which they first lose less than averaged logits. Of one
    member and of all, how sure they are, less how often right, and the expected error of calibration."""
    lines = []
    for name, row in sorted(results["places"].items(), key=lambda item: item[1]["logits"]["losses"][0]):
        law, other = row["logits"], row["probabilities"]
        pairs = enumerate(zip(law["losses"], other["losses"], strict=True), 1)
        ahead = next((f"ahead from {k} on" for k, (a, b) in pairs if k > 1 and b < a), "never ahead")
        off, apart = (f"1/K is off by {np.abs(curve['1/K']['residuals']).max():.3f}, free exponent "
                      f"{curve['free']['alpha']:.2f}" for curve in (law, other))
        one, both = (f"{row['calibration'][who]['overconfidence']:+.1%} ({row['calibration'][who]['error']:.1%})"
                     for who in ("one", "all"))
        lines += [f"{name}: one {law['losses'][0]:.3f} ± {law['standard_error'][0]:.3f}, all {law['losses'][-1]:.3f}, "
                  f"floor {law['1/K']['E']:.3f} ± {law['1/K']['standard_error']:.3f}",
                  f"   by two members {law['two members']:.3f}; {off}",
                  f"   too sure (error of calibration): one {one}, all {both}",
                  f"   probabilities: all {other['losses'][-1]:.3f}, {ahead}; {apart}"]
    return "\n".join(lines)


def joint(results: Results) -> str:
    """Of `ensembles/joint`: each size's tuned model, members and floor, and the limits over sizes of those floors."""
    sizes = results["sizes"]
    K = len(next(iter(sizes.values()))["losses"])
    lines = [f"size: one model tuned; one member, {K}, floor over members (by two); one in training"]
    for size in map(named, results["parameters"]):
        row = sizes[size]
        lines.append(f"{size:>5}: {row['single']:.3f}; {row['losses'][0]:.3f}, {row['losses'][-1]:.3f}, "
                     f"{row['1/K']['E']:.3f} ± {row['1/K']['standard_error']:.3f} ({row['two members']:.3f}); "
                     f"{row['train']:.2f}")
    for name, limit in results["limits"].items():
        span = Interval(*limit["profile"], 0.95, *limit["open"])
        lines.append(f"members {name}, over sizes: E {limit['E']:.3f}, exponent {limit['alpha']:.2f}, "
                     f"off by {np.abs(limit['residuals']).max():.3f};\n   "
                     f"± {limit['standard_error']:.3f} by other members, {_told(span)} by misfit")
    return "\n".join(lines)


def saved(results: Results) -> str:
    """Of `ensembles/data`: the least loss that was measured with each recipe, and how many times the text the standard
    recipe would need for it, along straight lines from loss to loss and by its law over tokens; the limit of each
    recipe's law over sizes, what it saves by that law, and what the ends of its interval by misfit would; and the laws
    over tokens. Brackets are of 95 percent, by seeds, and of a limit of members by members: see `savings`."""
    rows = dict(sorted(results["rows"].items(), key=lambda item: int(item[0])))
    usual, found, lines = [row["standard"]["loss"] for row in rows.values()], savings(results), []
    for n, row in rows.items():
        best = {recipe: min(row[recipe]["sizes"].items(), key=lambda item: item[1]["loss"])[0]
                for recipe in ("standard", "regularized")}
        best["joint"] = min(row["joint"]["curves"].items(), key=lambda item: item[1][-1])[0]
        lines.append(f"{int(n):,} tokens: standard {row['standard']['loss']:.3f} ({best['standard']})")
        for recipe, times in found[n].items():
            at, span = row[recipe], Interval(*row[recipe]["law"]["profile"], 0.95, *row[recipe]["law"]["open"])
            ends = " to ".join("any" if is_open else f"{data_efficiency(end, times.law, at=int(n)).value:,.1f}"
                               for end, is_open in ((span.high, span.open_high), (span.low, span.open_low)))
            lines += [f"   {recipe}: best {at['best']:.3f} ({best[recipe]}), {times.between:.2f} times the text "
                      f"{_ends(times.between_span)}{', beyond' if at['best'] < min(usual) else ''}",
                      f"      by the law {_times(times.best)}; limit {at['loss']:.3f}, {_times(times.limit)};",
                      f"      limit's misfit: {_told(span)}, or {ends} times"]
    for recipe, law in results["laws"].items():
        losses = np.array([row[recipe].get("best", row[recipe]["loss"]) for row in rows.values()])
        what = "losses" if recipe == "standard" else "limits"
        lines += [f"{recipe} {what} over tokens: exponent {law['alpha']:.2f}, E {law['E']:.2f}, off by "
                  f"{np.abs(law['residuals']).max():.3f}",
                  f"   E {_told(Interval(*law['profile'], 0.95, *law['open']))} by misfit; "
                  f"from count to count, measured: {_each(losses[:-1] - losses[1:])} less"]
    return "\n".join(lines)


def tuned(results: Results) -> str:
    """Of `ensembles/data`, for each size and from the least tokens to the most: where the regularized recipe's search
    ended, and the loss there, beside that of the standard recipe, of one member by the rule and of all."""
    _, rows = zip(*sorted((int(n), row) for n, row in results["rows"].items()), strict=True)
    lines = []
    for name in map(named, results["parameters"]):
        found = [row["regularized"]["sizes"][name] for row in rows]
        curves = [row["joint"]["curves"][name] for row in rows]
        decays, memories = (", ".join(f"{f[key]:.2g}" for f in found) for key in ("weight_decay", "time_scale"))
        lines += [f"{name}: decay {decays}; memory in epochs {memories}",
                  f"   standard {_each([row['standard']['sizes'][name]['loss'] for row in rows])}; tuned "
                  f"{_each([f['loss'] for f in found])}",
                  f"   one by the rule {_each([c[0] for c in curves])}; {len(curves[0])} of them "
                  f"{_each([c[-1] for c in curves])}"]
    return "\n".join(lines)


def ends(results: Results, starts: Mapping[int, Sequence[Place]]) -> str:
    """Of `ensembles/data`: how many searches ended where, regularized ones beside their `starts` by tokens and size. At
    the largest size also by how much twice and half the decay are worse, in the seed that searches."""
    names, kept, ahead, edges, worse, apart = list(map(named, results["parameters"])), 0, 0, Counter(), [], []
    for tokens, places in starts.items():
        usual, heavy, joint = (results["rows"][str(tokens)][recipe] for recipe in ("standard", "regularized", "joint"))
        for name, place in zip(names, places, strict=True):
            found = heavy["sizes"][name]
            kept += found["weight_decay"] == place.weight_decay
            ahead += joint["curves"][name][-1] < found["loss"]
            edges.update(found["at_edge"] + usual["sizes"][name]["at_edge"])
        apart += [max(row["sizes"][names[-1]]["losses"]) - min(row["sizes"][names[-1]]["losses"])
                  for row in (usual, heavy)]
        beside = {t["weight_decay"] / found["weight_decay"]: t["loss"] for t in found["tried"]
                  if (t["epochs"], t["lr"]) == (found["epochs"], found["lr"])}
        worse += [beside[times] - beside[1] for times in (0.5, 2) if times in beside]
    n, at = len(starts) * len(names), ", ".join(f"{axis} {k}" for axis, k in sorted(edges.items())) or "none"
    return (f"{n} regularized searches, {kept} with the decay where they began; members ahead in {ahead}\n"
            f"{2 * n} searches, at an end of the grid: {at}\n"
            f"{names[-1]}: twice or half the decay worse by {min(worse):.3f} to {max(worse):.3f}, "
            f"seeds {max(apart):.2f} apart")


def _each(numbers: Iterable[float]) -> str:
    return ", ".join(f"{x:.2f}" for x in numbers)


def went_on(results: Results) -> str:
    """Of `ensembles/continued`: one member, all averaged and their soup, by epochs of the new text; then members that
    began apart, on the old one."""
    rows = results["rows"] | {"begun apart, old text": results["begun apart"]}
    lines = [f"not one step of it: {results['base']:.3f}; trained on it alone: {results['from scratch']:.3f}"]
    lines += [f"{name}: one {row['one member']:.3f}, all {row['ensemble']:.3f}, soup {row['soup']:.3f}"
              for name, row in rows.items()]
    return "\n".join(lines)


def speeds(results: Results) -> str:
    """Of `ensembles/speed`: tokens a second of K members in one program, how many times as fast as one by one that is,
    and the share of the device's rate of products. Medians and quartiles of the turns."""
    lines = [f"{results['K']} members; products at {results['flops_per_s']:.2g} operations a second"]
    for name, row in sorted(results["sizes"].items(), key=lambda item: item[1]["parameters"]):
        rate, share = (row[key]["in one program"]["median"] for key in ("tokens_per_s", "share_of_rate"))
        faster = ", ".join("{} {median:.2f} [{low:.2f}, {high:.2f}]".format(way, **found)
                           for way, found in row["times_faster"].items())
        lines.append(f"{name:>5}: {rate:,.0f} tokens a second, {share:.0%} of that rate; times as fast as\n   {faster}")
    return "\n".join(lines)


def search(record: Record, flops_per_s: float) -> str:
    """Of a record of `ensembles/sizes`: its distinct runs, their operations, and the seconds of these at a rate of
    products, beside those that it took."""
    study, runs = record.config["study"], set()
    for recipe in record.results["recipes"].values():
        for model, n in zip(study["models"], record.results["parameters"], strict=True):
            task = Task(Data(**study["data"]), TransformerConfig(**model), study["batch"], study["precision"])
            row = recipe["sizes"][named(n)]
            runs.update(run for near in row["tried"] for run in runs_at(task, place_of(near), study["seeds"][:1]))
            runs.update(runs_at(task, place_of(row), study["seeds"]))
    flops, wall = sum(run.flops for run in runs), record.provenance["wall_s"]
    floor = flops / flops_per_s
    return (f"{len(runs)} runs, {flops:.1e} operations: {floor:,.0f} s at {flops_per_s:.1e} a second;\n"
            f"   took {wall:,.0f} s, {wall / floor:.1f} times that")


def copies(results: Results) -> str:
    """Of `ensembles/copying`: each member, the best first: its loss, what it saves in the end, and since when."""
    lines, saved = [], np.array(results["saved"])  # n K
    for k in np.argsort(results["losses"]):
        since = np.flatnonzero(saved[:, k] > COPIES)
        begun = f"copies from epoch {results['epochs'][since[0]]:.3g} on" if len(since) else "does not copy"
        lines.append(f"member {k}: loss {results['losses'][k]:.3f}, saves {saved[-1, k]:.2f} nats, {begun}")
    return "\n".join(lines)


def students(results: Results) -> str:
    """Of `ensembles/distill`: losses, the best first, and the share of the ensemble's gain that is kept."""
    rows = {arm: row["losses"] for arm, row in results["rows"].items()}
    lines = [f"{_span(rows[arm])} {arm}" for arm in sorted(rows, key=lambda arm: np.mean(rows[arm]))]
    for arm, kept in results["retention"].items():
        lines.append(f"kept {arm}: " + ("{:.0%}, 95 % {:.0%} to {:.0%}".format(*kept) if kept else "no gain to keep"))
    return "\n".join(lines)


def answers(results: Results) -> str:
    """Of `ensembles/downstream`: right answers, by what the context adds and by plain scores, with their intervals."""
    lines = []
    for kind, count in results["questions"].items():
        lines.append(f"{kind}, {count} questions, guessing {results['guess']:.0%}: by what the context adds; plain")
        for name, row in sorted(results["rows"].items(), key=lambda item: -item[1]["loss"]):
            gain, plain = ("{:.1%} [{:.1%}, {:.1%}]".format(*row[kind][way]) for way in ("gain", "score"))
            lines.append(f"   {name:>11}, loss {row['loss']:.3f}: {gain}; {plain}")
    return "\n".join(lines)


def differences(results: Results) -> dict[str, Float[np.ndarray, "S"]]:
    """Of `ensembles/extras`: each change's loss less that of the tuned model, for each of S seeds; the best first."""
    losses = {name: np.array(row["losses"]) for name, row in results["changes"]["rows"].items()}
    tuned = losses.pop("tuned")
    return dict(sorted(((name, found - tuned) for name, found in losses.items()), key=lambda row: row[1].mean()))


def beyond(results: Results) -> str:
    """Of `ensembles/extras`: members that are independent and chained, one and so many averaged; each change; each
    batch. Means, in nats a token, and the least and most of the chains or seeds; a change's mean with its standard
    error. A chain's members count from the second on, which is the first that has a teacher."""
    lines = ["independent; chained: one (there from the second on), and so many averaged"]
    for name, row in results["chains"].items():
        apart, chains = row["independent"], row["chained"]
        K = len(apart["own"])
        lines += [name, f"  one: {np.mean(apart['own']):.3f}; {_span([np.mean(c['own'][1:]) for c in chains])}"]
        by_place = np.mean([chain["own"] for chain in chains], axis=0)
        lines.append("  by place in the chain: " + " ".join(f"{loss:.3f}" for loss in by_place))
        for k in sorted({k for k in (2, 4) if k < K} | {K}):
            ways = ("logits",) if k < K else ("logits", "probabilities")
            told = [f"{apart['any'][way][k - 1]:.3f}; {_span([c[way][k - 1] for c in chains])}" for way in ways]
            lines.append(f"  {k:>3}: {', by probabilities '.join(told)}")
        gains = [np.mean(chain["own"]) - chain["logits"][-1] for chain in (apart, *chains)]
        lines.append(f"  averaging {K} gains {gains[0]:.3f}; {_span(gains[1:])}")
    lines += ["less the unchanged model's loss, at each seed"]
    for name, found in differences(results).items():
        error = f", give or take {found.std(ddof=1) / len(found) ** 0.5:.3f}" if len(found) > 1 else ""
        lines.append(f"  {name}: {_span(found, sign='+')}{error}")
    lines += ["one epoch, by windows a step"]
    lines += [f"  {batch:>3}, {row['steps']} steps: {_span(row['losses'])}"
              for batch, row in sorted(results["batches"].items(), key=lambda item: int(item[0]))]
    return "\n".join(lines)


def _span(found: Sequence[float] | Float[np.ndarray, "S"], *, sign: str = "") -> str:
    mean, low, high = (f"{x:{sign}.3f}" for x in (np.mean(found), np.min(found), np.max(found)))
    return mean if len(found) == 1 else f"{mean} [{low}, {high}]"


def _told(found: Interval) -> str:
    ends = ((found.low, found.open_low), (found.high, found.open_high))
    return " to ".join("open" if is_open else f"{end:.2f}" for end, is_open in ends)


def _ends(found: Interval) -> str:
    return f"[{found.low:.2f}, {found.high:.2f}]"


def _times(saved: Efficiency) -> str:
    return f"{saved.value:.2f} {_ends(saved.interval)}" if saved.reached else "never"

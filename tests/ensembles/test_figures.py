"""What chapter 5's figures draw is what their results hold, whatever the order of the rows."""

import warnings

import numpy as np
import pytest
import torch

from minilab.core.style import INK, PALETTE, figure_html
from minilab.ensembles import figures
from minilab.ensembles.evaluate import KCurve, all_subsets
from minilab.ensembles.experiments_members import of_curve
from minilab.ensembles.experiments_size import of_fit
from minilab.ensembles.scaling import PowerLaw, fit_power_law

N, K, D = [46_000, 91_000, 277_000, 1_200_000], np.arange(1, 9), [512, 1024, 2048, 4096]
NAMES = ["46k", "91k", "277k", "1.2M"]
STANDARD, HEAVY = [4.9, 4.75, 4.72, 4.78], [4.8, 4.65, 4.53, 4.5]


def told(loss: float, **more) -> dict:
    return {"loss": loss, "losses": [loss - 0.01, loss + 0.01], "train": loss - 0.5, **more}


def fitted(x, losses) -> dict:
    return {"free": of_fit(fit_power_law(x, losses)), "alpha = 1": of_fit(fit_power_law(x, losses, alpha=1.0))}


def curve(law: PowerLaw, spread: float = 0.05) -> KCurve:
    """Six members of which each is better or worse than the law by a little, in every ensemble."""
    subsets = all_subsets(6)
    sizes, offsets = subsets.sum(dim=1), spread * torch.linspace(-1, 1, 6)
    return KCurve(subsets, (torch.from_numpy(law(sizes.numpy())) + subsets.float() @ offsets / sizes)[:, None].float())


EPOCHS = {"rows": {decay: {str(e): told(loss) for e, loss in ((16, 4.6 + s), (2, 5.4), (4, 5.0 - s), (8, 4.7))}
                   for decay, s in (("1.6", -0.05), ("0.1", 0.3))}}
DECAY = {"parameters": N, "rows": {
    name: {f"{w:g}": told(4.7 + 0.1 * np.log(max(w, 0.05) / best) ** 2, time_scale=1 / (0.384 * w) if w else 1e9)
           for w in (1.6, 0.0, 0.1, 0.4, 6.4)} for name, best in zip(NAMES, (0.4, 0.4, 1.6, 1.6), strict=True)}}
PLACES = {"32 epochs, decay 0.2": (32, PowerLaw(0.36, 1, 4.41)), "8 epochs, decay 0.8": (8, PowerLaw(0.13, 1, 4.62))}
TOGETHER = {"places": {name: {"epochs": e, "weight_decay": 6.4 / e, "logits": of_curve(curve(law)),
                              "probabilities": of_curve(curve(PowerLaw(law.A, 1, law.E + 0.1)))}
                       for name, (e, law) in PLACES.items()}}
SIZES = {"parameters": N, "recipes": {
    name: {"sizes": dict(sorted(zip(NAMES, map(told, losses), strict=True))), "law": fitted(N, losses)}
    for name, losses in (("regularized", HEAVY), ("standard", STANDARD))}}
JOINT = {"parameters": N, "sizes": {name: {"single": loss, "losses": (loss - 0.2 + 0.3 / K[:4]).tolist()}
                                    for name, loss in sorted(zip(NAMES, HEAVY, strict=True))}}
LAWS = {"joint": PowerLaw(40.0, 0.5, 2.0), "regularized": PowerLaw(50.0, 0.5, 2.2),
        "standard": PowerLaw(60.0, 0.5, 2.4)}
DATA = {"rows": {str(d): {name: {"loss": law(d)} | ({"best": law(d) + 0.1} if name == "joint" else {})
                          for name, law in LAWS.items()} for d in D},
        "laws": {name: of_fit(fit_power_law(D, [law(d) for d in D])) for name, law in LAWS.items()},
        "efficiency": {str(d): {"standard": 1.0, "regularized": 1.8, "joint": None if d == 4096 else 3.0,
                                "joint, nothing extrapolated": 2.0} for d in D}}
STUDENTS = {"rows": {"ensemble": {"losses": [4.41]}, "one teacher": {"losses": [5.02]},
                     "regularized": {"losses": [4.67]}, "from the ensemble": {"losses": [4.6, 4.64]}}}
EXTRAS = {
    "chains": {f"{e} epochs, decay {6.4 / e:g}": {
        "epochs": e, "weight_decay": 6.4 / e,
        "independent": {"own": [5.0, 5.1, 4.9], "any": {"logits": [5.0, 4.6, 4.5], "probabilities": [5.0, 4.5, 4.4]}},
        "chained": [{"own": [own, 4.8, 4.7], "logits": [own, 4.6, 4.3], "probabilities": [own, 4.4, 4.2]}
                    for own in (s - 0.1, s + 0.1)]} for e, s in ((32, 5.1), (16, 5.0))}}
COPYING = {"epochs": [0.5, 1.0, 1.5], "losses": [4.1, 3.8], "valid": [[5.0, 5.1], [4.5, 4.4], [4.1, 3.8]],
           "saved": [[0.0, -0.1], [0.0, 0.2], [0.05, 0.5]]}
ALL = {figures.epochs_sweep: EPOCHS, figures.decay_sweep: DECAY, figures.k_curves: TOGETHER, figures.size_law: SIZES,
       figures.scaling_plane: JOINT, figures.data_law: DATA, figures.students: STUDENTS, figures.chained: EXTRAS,
       figures.copying: COPYING}


def labelled(ax) -> dict:
    """The lines that the legend names."""
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def levels(ax) -> list[float]:
    """Where the dotted lines across the picture are."""
    return [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_a_figure_draws_without_a_warning_and_labels_its_axes(draw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig = draw(ALL[draw])
        html = figure_html(fig, alt="A figure")
    assert "<svg" in html and all(ax.get_xlabel() for ax in fig.axes)
    assert "nats a token" in fig.axes[0].get_ylabel() + fig.axes[0].get_xlabel()
    assert len(fig.legends) == (draw is not figures.students)  # whose rows are named at the axis


def test_epochs_are_in_order_and_training_is_dashed():
    ax = figures.epochs_sweep(EPOCHS).axes[0]
    lines = labelled(ax)
    assert list(lines) == [f"decay {w}, {what}" for w in ("0.1", "1.6") for what in ("validation", "training")]
    usual = lines["decay 0.1, validation"]
    np.testing.assert_allclose(usual.get_xdata(), [2, 4, 8, 16])
    np.testing.assert_allclose(usual.get_ydata(), [5.4, 4.7, 4.7, 4.9])
    assert lines["decay 0.1, training"].get_linestyle() == "--" and usual.get_linestyle() == "-"
    assert sum(len(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "None") == 2 * 4 * 2


def test_decays_mark_the_least_and_have_a_time_scale():
    left, right = figures.decay_sweep(DECAY).axes
    assert list(labelled(left)) == NAMES
    stars = {ax: [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "*"] for ax in (left, right)}
    assert stars[left] == [0.4, 0.4, 1.6, 1.6]
    np.testing.assert_allclose(stars[right], [1 / (0.384 * w) for w in stars[left]])
    assert max(x for line in labelled(right).values() for x in line.get_xdata()) < 1e3  # not that of no decay
    assert len(levels(left)) == 4


def test_k_curves_carry_their_limit_and_come_by_epochs():
    ax = figures.k_curves(TOGETHER).axes[0]
    assert list(labelled(ax)) == ["8 epochs, decay 0.8", "32 epochs, decay 0.2"]
    np.testing.assert_allclose(levels(ax), [4.62, 4.41], rtol=1e-6)
    band = ax.collections[0].get_paths()[0].vertices
    error = TOGETHER["places"]["8 epochs, decay 0.8"]["logits"]["standard_error"]
    assert band[:, 0].max() == 5 and band[:, 1].max() == pytest.approx(4.75 + 2 * error[0]) and error[0] > 0.01
    other = figures.k_curves(TOGETHER, average="probabilities").axes[0]
    np.testing.assert_allclose(levels(other), [4.72, 4.51], rtol=1e-6)


def test_a_size_law_finds_the_losses_by_name_and_shades_the_interval():
    for kind in ("free", "alpha = 1"):
        ax = figures.size_law(SIZES, law=kind).axes[0]
        points = [line.get_ydata() for line in ax.lines if line.get_marker() == "o" and len(line.get_ydata()) == 4]
        np.testing.assert_allclose(points, [STANDARD, HEAVY])
        laws = [SIZES["recipes"][name]["law"][kind] for name in ("standard", "regularized")]
        np.testing.assert_allclose(levels(ax), [law["E"] for law in laws])
        bottom, top = ax.get_ylim()
        for patch, law in zip(ax.patches, laws, strict=True):
            low, high = (end if open_ else value for value, open_, end in
                         zip(law["profile"], law["open"], (bottom, top), strict=True))
            assert patch.get_y() == pytest.approx(max(low, bottom))
            assert patch.get_y() + patch.get_height() == pytest.approx(min(high, top))


def test_a_size_law_has_a_band_over_its_seeds():
    for band, losses in zip(figures.size_law(SIZES).axes[0].collections, (STANDARD, HEAVY), strict=True):
        edge = band.get_paths()[0].vertices
        for n, loss in zip(N, losses, strict=True):
            at = edge[edge[:, 0] == n, 1]
            assert (at.min(), at.max()) == pytest.approx((loss - 0.01, loss + 0.01))


def test_error_of_a_floor_is_that_of_the_mean_over_members():
    # Members that move every curve up or down move its floor alike, so the jackknife is the usual standard error.
    offsets = 0.05 * torch.linspace(-1, 1, 6)
    found = of_curve(curve(PowerLaw(0.36, 1, 4.41)))["1/K"]["standard_error"]
    assert found == pytest.approx(float(offsets.std() / 6**0.5), rel=1e-3)


def test_members_stand_over_their_parameters_together():
    ax = figures.scaling_plane(JOINT).axes[0]
    lines = labelled(ax)
    assert list(lines) == ["one model, tuned", *(f"members of {name}" for name in NAMES)]
    np.testing.assert_allclose(lines["one model, tuned"].get_ydata(), HEAVY)
    np.testing.assert_allclose(lines["members of 91k"].get_xdata(), 91_000 * K[:4])
    assert lines["one model, tuned"].get_color() == INK and lines["members of 46k"].get_color() == PALETTE.blue


def test_students_stand_in_order_between_the_model_to_better_and_the_ensemble():
    ax = figures.students(STUDENTS).axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["ensemble", "from the ensemble", "regularized", "one teacher"]
    marks = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert marks == [4.67, 4.41]
    means = {line.get_ydata()[0]: line.get_xdata()[0] for line in ax.lines if line.get_markersize() == 7}
    assert [means[y] for y in range(4)] == pytest.approx([4.41, 4.62, 4.67, 5.02])


def test_a_data_law_shows_losses_and_what_they_are_worth():
    left, right = figures.data_law(DATA).axes
    assert list(labelled(left)) == ["standard", "regularized", "joint"]
    np.testing.assert_allclose(labelled(left)["joint"].get_ydata()[0], LAWS["joint"](512), rtol=1e-6)
    np.testing.assert_allclose(right.lines[4].get_ydata(), [3, 3, 3, np.nan])
    np.testing.assert_allclose(right.lines[5].get_ydata(), [2, 2, 2, 2])
    hollow = [line.get_ydata() for line in left.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(hollow[-1], [LAWS["joint"](d) + 0.1 for d in D])
    assert np.isnan(hollow[0]).all() and right.lines[5].get_color() == labelled(left)["joint"].get_color()


def test_who_copies_in_the_end_has_a_color_of_its_own_from_the_beginning():
    left, right = figures.copying(COPYING).axes
    assert {name: line.get_color() for name, line in labelled(left).items()} == {
        "copies in the end": PALETTE.blue, "does not": PALETTE.orange}
    np.testing.assert_allclose(labelled(left)["copies in the end"].get_ydata(), [5.1, 4.4, 3.8])
    saved = {line.get_color(): line.get_ydata() for line in right.lines}
    np.testing.assert_allclose(saved[PALETTE.orange], [0.0, 0.0, 0.05])


def test_an_axis_does_not_follow_an_asymptote_at_zero():
    laws = {name: law | {"E": 0.0} for name, law in DATA["laws"].items()}
    left = figures.data_law(DATA | {"laws": laws}).axes[0]
    losses = [row["loss"] for some in DATA["rows"].values() for row in some.values()]
    assert left.get_ylim()[0] == pytest.approx(min(losses) - (max(losses) - min(losses)) / 4)


def test_chains_are_drawn_by_their_means_beside_any_members_that_are_independent():
    for average in ("logits", "probabilities"):
        left, right = figures.chained(EXTRAS, average=average).axes
        names = [f"{e} epochs, decay {w}, {how}" for e, w in ((16, "0.4"), (32, "0.2"))
                 for how in ("independent", "chained")]
        assert list(labelled(left)) == list(labelled(right)) == names
        b = 0.0 if average == "logits" else 0.1
        for ax, apart, chained in ((left, [5.0, 5.0, 5.0], [5.1, 4.8, 4.7]),
                                   (right, [5.0, 4.6 - b, 4.5 - b], [5.1, 4.6 - 2 * b, 4.3 - b])):
            lines = labelled(ax)
            np.testing.assert_allclose(lines[names[2]].get_ydata(), apart)
            np.testing.assert_allclose(lines[names[3]].get_ydata(), chained)
            assert lines[names[2]].get_linestyle() == "--" and lines[names[3]].get_linestyle() == "-"
        dots = [line.get_ydata()[0] for line in left.lines if line.get_linestyle() == "None"]
        np.testing.assert_allclose(dots, [4.9, 5.1, 5.0, 5.2])

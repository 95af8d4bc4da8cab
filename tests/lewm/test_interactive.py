"""The cloud: what SIGReg sees of it, without scripts and in a browser."""

import re

import numpy as np
import pytest
import torch
from lewm.figure_page import (
    PAGE,
    cells,
    computed,
    faults,
    generator,
    page_faults,
    told,
    visible,
    without_javascript,
)
from live import drawn, turn

from minilab.lewm.interactive import cloud_html, clouds, live_cloud, show_cloud
from minilab.lewm.sigreg import epps_pulley, expected, gradient, sigreg


def test_shapes_that_are_no_gaussian_have_its_mean_and_covariance():
    for name, points in clouds().items():
        cov = np.cov(points.numpy().T, bias=True)
        if name in ("X", "ring", "two lumps"):
            np.testing.assert_allclose(points.mean(dim=0), 0, atol=1e-9)
            np.testing.assert_allclose(cov, np.eye(2), atol=1e-9)
    assert clouds()["collapsed"].std() < 0.03


def test_cloud_without_scripts_is_a_table_of_the_statistic():
    """The reference integrates over both signs of t, in numpy."""
    t = np.linspace(-3, 3, 33)
    w = np.exp(-t**2 / 2)
    theta = np.arange(90) * np.pi / 90
    found = cells(cloud_html())
    for name, points in clouds().items():
        h = np.round(points.numpy(), 3) @ np.stack((np.cos(theta), np.sin(theta)))  # N M
        gap = np.abs(np.exp(1j * h[..., None] * t).mean(axis=0) - w) ** 2  # M K
        told = len(h) * np.trapezoid(gap * w, t, axis=-1)
        assert found[name] == [f"{told.mean():.2f}", f"{told.min():.2f} at {2 * told.argmin()}°",
                               f"{told.max():.2f} at {2 * told.argmax()}°"]


def test_the_x_is_seen_along_its_arms_and_not_between_them():
    mean, lowest, highest = cells(cloud_html())["X"]
    floor, collapse = expected(120, 0, 1), expected(120, 0, 0)
    assert float(lowest.split()[0]) < 0.1 * floor and float(highest.split()[0]) > 5 * floor
    assert abs(int(highest.split()[2][:-1]) % 90 - 45) < 10
    assert float(cells(cloud_html())["collapsed"][0]) == pytest.approx(collapse, rel=0.01)


def test_figure_is_whole_and_small():
    assert faults(cloud_html()) == [] and len(cloud_html().encode()) < 40_000


def test_your_own_cloud_may_replace_the_shapes():
    html = cloud_html({"mine <3": torch.randn(50, 2, generator=generator())}, shape="mine <3")
    assert list(cells(html)) == ["mine &lt;3"] and "50 points" in html


@pytest.mark.parametrize("options, message", [
    ({"shape": "star"}, "no shape called 'star'; choose one of Gaussian, X"),
    ({"points": {"a": torch.zeros(19, 2)}, "shape": "a"}, "give 20 to 300 finite points"),
    ({"points": {"a": torch.full((50, 2), float("nan"))}, "shape": "a"}, "finite points"),
])
def test_clouds_that_cannot_be_shown_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cloud_html(**options)


def test_show_prints_the_table_where_there_is_no_notebook(capsys):
    show_cloud()
    assert f"Gaussian: mean {cells(cloud_html())['Gaussian'][0]}, lowest" in capsys.readouterr().out


# With a kernel.


def means(html: str) -> list[float]:
    """The mean over directions, of the cloud and of a draw of N(0, I)."""
    return [float(mean) for mean, *_ in cells(html).values()]


def test_live_cloud_is_sigreg_of_the_shape_and_of_normal_numbers_beside_it():
    html = turn(live_cloud(), {"shape": "ring", "points n": 250, "dimensions D": 7, "directions M": 400, "seed": 3})
    g = generator(10_003)
    z = torch.cat((clouds(250, 3)["ring"], torch.randn(250, 5, generator=g, dtype=torch.float64)), dim=1)
    assert means(html)[0] == pytest.approx(float(sigreg(z, g, directions=400)), abs=0.006)
    normal = torch.randn(250, 7, generator=g, dtype=torch.float64)
    assert means(html)[1] == pytest.approx(float(sigreg(normal, g, directions=20_000)), abs=0.2)
    assert f"{expected(250, 0, 0):.1f}" in html and "250 points along 400" in html and html.count("<svg") == 1


def test_in_more_dimensions_directions_at_random_see_the_x_as_a_gaussian():
    floor = expected(120, 0, 1)
    excess = [means(drawn(live_cloud(dimensions=D, directions=1_000)))[0] - floor for D in (2, 8, 32)]
    assert excess[0] > 0.8 and max(map(abs, excess[1:])) < 0.15


def test_live_cloud_takes_latents_of_yours():
    latents = torch.randn(64, 5, generator=generator()).half()
    figure = live_cloud({"mine": latents, "shrunk": 0.01 * latents})
    assert list(cells(drawn(figure)))[0] == "mine" and "64 points" in drawn(figure)
    assert means(turn(figure, {"shape": "shrunk"}))[0] == pytest.approx(expected(64, 0, 0), rel=0.01)
    assert "&#x27;shrunk&#x27; is (64, 5): give at most so many points" in turn(figure, {"points n": 65})
    assert "no fewer dimensions" in turn(live_cloud({"mine": latents}), {"dimensions D": 4})


@pytest.mark.parametrize("values", [{"points n": 19}, {"directions M": 0}, {"points n": 5_001, "directions M": 100}])
def test_live_cloud_says_what_is_wrong(values):
    assert "at most 500,000 projections" in turn(live_cloud(), values)


def test_live_cloud_refuses_a_shape_that_there_is_none_of():
    with pytest.raises(ValueError, match="'star' has no button; choose one of Gaussian, X"):
        live_cloud(shape="star")


# In a browser.


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=cloud_html()))
    yield page
    page.close()


def mean_told(page) -> float:
    return float(re.search(r"Mean over 90 directions: ([\d.]+)", told(page))[1])


def rounded(name: str) -> torch.Tensor:
    return clouds()[name].mul(1000).round() / 1000


def headings() -> torch.Tensor:
    theta = torch.arange(90, dtype=torch.float64) * torch.pi / 90
    return torch.stack((theta.cos(), theta.sin()))


@pytest.mark.slow
def test_script_computes_the_statistic_and_its_gradient_as_torch_does(page):
    samples = {name: points[:, 0] for name, points in clouds().items()}
    samples |= {"far": samples["X"] * 30, "off": samples["ring"] + 3, "three": torch.tensor([-0.5, 0.1, 9.0]).double()}
    for knots, t_max in ((17, 3.0), (9, 5.0)):
        found = computed(page, ("sigreg.js",), """
            const [samples, knots, tMax] = a, q = quadrature(knots, tMax);
            return samples.map(h => [eppsPulley(h, q), slope(h, q)]);""",
            [h.tolist() for h in samples.values()], knots, t_max)
        for h, (statistic, slope) in zip(samples.values(), found, strict=True):
            theirs = epps_pulley(h[:, None], knots=knots, t_max=t_max)
            assert statistic == pytest.approx(float(theirs[0]), rel=1e-9, abs=1e-9)
            np.testing.assert_allclose(slope, gradient(h[:, None], knots=knots, t_max=t_max)[:, 0], atol=1e-9)


@pytest.mark.slow
def test_cloud_tells_what_torch_computes_of_its_points(page):
    points = rounded("X")
    statistic, (there,) = epps_pulley(points @ headings()), epps_pulley(points.sum(dim=1, keepdim=True) / 2**0.5)
    assert told(page) == (
        f"Mean over 90 directions: {statistic.mean():.2f} (floor {expected(120, 0, 1):.2f}, collapse "
        f"{expected(120, 0, 0):.1f}). Along θ = 45°: {there:.2f}; lowest {statistic.min():.2f} at "
        f"{2 * statistic.argmin()}°, highest {statistic.max():.2f} at {2 * statistic.argmax()}°. Standard deviations "
        "1.00 and 1.00, correlation 0.00.")
    page.get_by_role("slider", name="direction").press("ArrowRight")
    assert f"Along θ = 46°: {statistic[23]:.2f};" in told(page)


@pytest.mark.slow
def test_sliders_stretch_and_shift_the_cloud(page):
    page.get_by_role("button", name="ring").click()
    for name, key in (("spread of z₁", "End"), ("spread of z₂", "Home"), ("shift", "End")):
        page.get_by_role("slider", name=name).press(key)
    x = rounded("ring") * torch.tensor([2.5, 0.0]) + torch.tensor([2.0, 0.0])
    assert mean_told(page) == pytest.approx(float(epps_pulley(x @ headings()).mean()), abs=0.006)
    assert "Standard deviations 2.50 and 0.00" in told(page)
    page.get_by_role("button", name="Reset").click()
    assert "Standard deviations 1.00 and 1.00" in told(page)


@pytest.mark.slow
def test_gradient_steps_are_autograds_and_end_below_the_floor(page):
    x, a = rounded("X").requires_grad_(), headings()
    for _ in range(5):
        page.get_by_role("button", name="1 gradient step").click()
        slope, = torch.autograd.grad(epps_pulley(x @ a).mean(), x)
        x = (x - 0.4 * slope).detach().requires_grad_()
        assert mean_told(page) == pytest.approx(float(epps_pulley(x.detach() @ a).mean()), abs=0.006)
    assert page.locator("[data-out=steps]").inner_text() == "5 steps"
    place = page.locator("circle.point").first.evaluate("e => [e.getAttribute('cx'), e.getAttribute('cy')]")
    seen = [(float(place[0]) - 170) / 42.5, (170 - float(place[1])) / 42.5]
    np.testing.assert_allclose(seen, x[0].detach(), atol=0.002)
    page.get_by_role("button", name="Run").click()
    page.wait_for_function("""() => Number(document.querySelector('[data-out=told]').textContent
        .match(/directions: ([0-9.]+)/)[1]) < 0.5""")
    page.get_by_role("button", name="Pause").click()
    assert "correlation 0.0" in told(page) or "correlation -0.0" in told(page)


@pytest.mark.slow
def test_a_point_moves_by_keys_and_by_the_pointer(page):
    place = """n => { const e = document.querySelector(`circle[data-n="${n}"]`);
        return [Number(e.getAttribute('cx')), Number(e.getAttribute('cy'))]; }"""
    before, first = page.evaluate(place, 1), page.evaluate(place, 0)
    stage = page.locator(".ml-stage")
    for key in ("n", "ArrowRight", "ArrowRight", "Shift+ArrowUp"):
        stage.press(key)
    np.testing.assert_allclose(np.subtract(page.evaluate(place, 1), before), [8.5, -21.25], atol=0.15)
    assert page.evaluate(place, 0) == first
    page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('Point 2 ')")
    x = rounded("X")
    x[1] += torch.tensor([0.2, 0.5])
    assert mean_told(page) == pytest.approx(float(epps_pulley(x @ headings()).mean()), abs=0.006)

    box = page.locator('circle[data-n="7"]').bounding_box()
    start = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    at = page.evaluate(place, 7)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + 40, start[1] - 30, steps=3)
    page.mouse.up()
    page.mouse.move(*start)
    unit = 340 / page.locator("[data-plot=cloud]").bounding_box()["width"]
    np.testing.assert_allclose(np.subtract(page.evaluate(place, 7), at), [40 * unit, -30 * unit], atol=1.5)


@pytest.mark.slow
def test_print_keeps_the_pictures_and_a_page_without_scripts_the_table(browser, page):
    page.emulate_media(media="print")
    assert visible(page, "table, svg") == {True} and visible(page, "button, input") == {False}
    plain = without_javascript(browser, cloud_html())
    assert visible(plain, "table") == {True} and visible(plain, "button, input, svg") == {False}
    plain.close()


@pytest.mark.slow
def test_two_on_a_page_pass_axe_and_fit_a_phone(browser, tmp_path):
    assert page_faults(browser, tmp_path, cloud_html() + cloud_html(shape="ring")) == []

"""Surprise, on worlds that break their laws when told to, and the statistics of it."""

from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from minilab.lewm.collect import Recipe, collect
from minilab.lewm.data import Clips
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.surprise import Films, auc, auc_interval, films, paired_t, roc, surprise, watch

T, SIZE = 7, 32


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["rooms", "disc"])
def clips(request, tmp_path_factory):
    data = collect(Recipe(request.param, episodes=40, steps=60), folder=tmp_path_factory.mktemp("data"))
    return Clips(data, frames=T, size=SIZE)


def test_films_part_at_the_event_and_not_before(clips):
    shown = films(clips, 20, generator())
    nominal, recolored, teleported = shown.frames.values()
    assert shown.event == 3 and nominal.shape == (20, T, 3, SIZE, SIZE)
    for other in (recolored, teleported):
        assert torch.equal(other[:, :3], nominal[:, :3])
        changed = (other[:, 3:] != nominal[:, 3:]).flatten(2).any(dim=-1)
        assert changed.all(dim=1).float().mean() > 0.9


def test_the_untouched_film_is_what_the_data_show(clips):
    clip = clips.draw(20, generator())
    shown = films(clips, 20, generator())
    difference = (shown.frames["nominal"].int() - clip.frames.int()).abs()
    assert difference.max() <= 2  # actions went through their scale and back
    assert torch.equal(shown.actions, clip.actions)


def test_a_new_color_leaves_everything_where_it_was(clips):
    shown = films(clips, 20, generator(), color=(0.0, 255.0, 0.0), event=2)
    difference = (shown.frames["recolored"].int() - shown.frames["nominal"].int()).abs().amax(dim=2)  # B T H W
    again = films(clips, 20, generator(), color=(0.0, 0.0, 0.0), event=2)
    elsewhere = (again.frames["recolored"].int() - shown.frames["nominal"].int()).abs().amax(dim=2)
    assert (difference[:, 2:] > 8).float().mean() < 0.15  # a thing, not the picture
    weight = (difference * elsewhere).float().sum() / (difference.float().norm() * elsewhere.float().norm())
    assert weight > 0.8


def test_after_a_jump_the_same_actions_go_on(clips):
    """Where nothing is in the way, two films keep the distance that the jump made."""
    shown = films(clips, 200, generator())
    clip = clips.draw(200, generator())
    assert torch.equal(shown.actions, clip.actions)
    if clips.world.name == "rooms":
        red = shown.frames["teleported"].float()
        red = (red[:, :, 0] - red[:, :, 1]).clamp(min=0)
        x = (red.sum(dim=-2) @ torch.arange(SIZE).float()) / red.sum(dim=(-1, -2)) * 224 / SIZE  # B T
        moved = clips.scale.actions(clip.actions[:, 3:-1]).clamp(-1, 1)[..., 0].sum(dim=-1) * 5
        free = (x[:, 3:].diff(dim=1) - moved).abs() < 3
        assert free.float().mean() > 0.6


def test_films_that_cannot_be_made_say_why(clips):
    with pytest.raises(ValueError, match="a frame before it"):
        films(clips, 2, generator(), event=0)
    with pytest.raises(ValueError, match="a frame before it"):
        films(clips, 2, generator(), event=T)


def test_surprise_is_the_error_of_the_prediction_from_what_really_was():
    torch.manual_seed(0)
    model = LeWM(cpu(4, history=3, head_norm="layer")).eval()
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.steer.weight, std=0.3)
    frames = torch.randint(0, 256, (2, 6, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator())
    actions = torch.randn(2, 6, 4, generator=generator())
    told, z = surprise(model, frames, actions), model.encode(frames)
    assert told.shape == (2, 5)
    for t in range(1, 6):
        context = slice(max(0, t - 3), t)
        expected = model.predict(z[:, context], actions[:, context])[:, -1]
        torch.testing.assert_close(told[:, t - 1], (expected - z[:, t]).square().mean(dim=-1), atol=1e-6, rtol=1e-4)


class Knows(LeWM):
    """Latents are given as the first two numbers of a picture, and it expects what blocks say."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.config = SimpleNamespace(history=1, actions=2)

    def encode(self, frames):
        return frames[:, :, 0, 0, :2].float()

    def imagine(self, z_history, actions, past=None):
        return z_history[:, -1:] + actions


def test_who_knows_the_physics_is_surprised_by_the_jump_alone_and_only_in_its_block():
    steps = torch.randint(1, 5, (50, T, 2), generator=generator()).float()
    place = torch.cat((torch.full((50, 1, 2), 20.0), 20 + steps[:, :-1].cumsum(dim=1)), dim=1)
    frames = torch.zeros(50, T, 3, SIZE, SIZE, dtype=torch.uint8)
    frames[:, :, 0, 0, :2] = place.to(torch.uint8)
    jumped, painted = frames.clone(), frames.clone()
    jumped[:, 4:, 0, 0, :2] += torch.randint(1, 50, (50, 1, 2), dtype=torch.uint8, generator=generator(1))
    painted[:, 4:, 1] = 255
    told = watch(Knows(), Films({"nominal": frames, "recolored": painted, "teleported": jumped}, steps, 4), generator())
    assert (told.curves["teleported"] > 0).nonzero()[:, 1].unique().tolist() == [3]
    assert told.detected["teleported"].auc == 1.0 and told.detected["teleported"].p < 1e-6
    assert told.detected["teleported"].interval == (1.0, 1.0)
    assert told.detected["recolored"].auc == 0.5 and told.detected["recolored"].p == 1.0
    mean, error = told.mean("teleported")
    assert mean.argmax() == 3 and error[3] > 0 == error[0]


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("n", [2, 3, 30, 200])
def test_paired_t_and_its_p_are_scipys(n, shift):
    a, b = torch.randn(2, n, generator=generator(n), dtype=torch.float64)
    theirs = stats.ttest_rel((a + shift).numpy(), b.numpy())
    t, p = paired_t(a + shift, b)
    assert t == pytest.approx(theirs.statistic, rel=1e-9)
    assert p == pytest.approx(theirs.pvalue, rel=1e-4)


def test_auc_is_the_share_of_pairs_and_the_area_below_the_roc():
    event, usual = torch.tensor([3.0, 2, 2, 0]), torch.tensor([1.0, 2, -1])
    # pairs above: 3 + (2 and a tie) twice + 1 = 9 of 12
    assert auc(event, usual) == pytest.approx(9 / 12)
    false_alarms, detections = roc(event, usual)
    assert float(torch.trapezoid(detections, false_alarms)) == pytest.approx(9 / 12)
    assert (false_alarms[0], detections[0], false_alarms[-1], detections[-1]) == (0, 0, 1, 1)
    a, b = torch.randn(300, generator=generator()) + 1, torch.randn(200, generator=generator(1))
    u = stats.mannwhitneyu(a.numpy(), b.numpy()).statistic
    assert auc(a, b) == pytest.approx(u / (300 * 200), rel=1e-6)


def test_the_interval_holds_the_true_auc_as_often_as_it_says():
    true = float(torch.special.ndtr(torch.tensor(1 / 2**0.5)))  # of N(1, 1) against N(0, 1)
    held = 0
    for trial in range(100):
        a, b = torch.randn(2, 60, generator=generator(trial))
        low, high = auc_interval(a + 1, b, generator(1000 + trial), draws=200)
        held += low <= true <= high
    assert 86 <= held <= 100


def test_films_are_drawn_with_their_pair():
    """A film and itself: whatever is drawn, neither is the more surprising."""
    same = torch.randn(80, generator=generator())
    low, high = auc_interval(same, same, generator())
    assert low == high == 0.5

"""The world model: what may depend on what, and that the published shape is the published one."""

import pytest
import torch

from minilab.lewm.model import Head, LeWM, cpu, gpu, published

SMALL = cpu(4, dropout=0.0)
B, T, D = 3, 4, SMALL.latent


def frames(n: int = B, steps: int = T) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, steps, 3, 32, 32), dtype=torch.uint8, generator=generator)


def actions(steps: int = T) -> torch.Tensor:
    return torch.randn(B, steps, 4, generator=torch.Generator().manual_seed(1))


def awake(config=SMALL) -> LeWM:
    """A model in evaluation whose blocks are no longer the identity."""
    torch.manual_seed(0)
    model = LeWM(config)
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.steer.weight, std=0.3)
    return model.eval()


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_published_model_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = LeWM(published(5 * 2))
        assert count(model) == 18_034_478
        parts = {name: count(part) for name, part in model.named_children()}
        assert parts == {"encoder": 5_501_376, "projector": 792_768, "action_encoder": 156_206,
                         "predictor": 10_791_360, "predictor_head": 792_768}
        assert count(LeWM(published(10, inner_norms=False))) == 18_034_478 - 6 * 2 * 2 * 192
        assert count(LeWM(gpu(10))) == 17_921_582
        assert 2e5 < count(LeWM(cpu(10))) < 5e5


def test_a_fresh_predictor_ignores_actions_and_a_steered_one_does_not():
    torch.manual_seed(0)
    fresh, z = LeWM(SMALL).eval(), torch.randn(B, 3, D)
    assert torch.equal(fresh.predict(z, actions(3)), fresh.predict(z, -actions(3)))
    assert not torch.allclose(awake().predict(z, actions(3)), awake().predict(z, -actions(3)))


@pytest.mark.parametrize("at", [1, 2])
def test_what_comes_later_changes_nothing_earlier(at):
    model, images, blocks = awake(), frames(), actions()
    z, predicted = model(images, blocks)
    later, other = images.clone(), blocks.clone()
    later[:, at] = 255 - later[:, at]
    z_changed, after_frame = model(later, blocks)
    other[:, at, 0] += 1
    _, after_action = model(images, other)
    same = torch.isclose(z, z_changed, atol=1e-6).flatten(2).all(dim=-1).all(dim=0)
    assert same.tolist() == [t != at for t in range(T)]
    for changed in (after_frame, after_action):
        same = torch.isclose(predicted, changed, atol=1e-6).all(dim=-1).all(dim=0)
        assert same.tolist() == [t < at for t in range(T - 1)]


def test_the_last_block_of_a_clip_leaves_it_and_predicts_nothing():
    model, other = awake(), actions()
    other[:, -1] += 1
    assert torch.equal(model(frames(), actions())[1], model(frames(), other)[1])


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("h", [1, 3])
def test_imagining_is_predicting_step_by_step_with_a_context_that_grows(history, h):
    if h > history:
        return
    model = awake(cpu(4, dropout=0.0, history=history))
    z, past, blocks = torch.randn(B, h, D), actions(h - 1), -actions(5)
    dreamed = model.imagine(z, blocks, past if h > 1 else None)
    every, seen = torch.cat((past, blocks), dim=1), z
    for step in range(5):
        context = range(max(0, h + step - history), h + step)
        window = torch.stack([seen[:, i] for i in context], dim=1)
        taken = torch.stack([every[:, i] for i in context], dim=1)
        new = model.predict(window, taken)[:, -1]
        torch.testing.assert_close(dreamed[:, step], new, atol=1e-6, rtol=1e-5)
        seen = torch.cat((seen, new[:, None]), dim=1)
    assert dreamed.shape == (B, 5, D)


def test_a_batchnorm_head_whitens_in_training_and_keeps_running_averages_for_later():
    torch.manual_seed(0)
    head = Head(6, 8, 8, "batch")
    head.down = torch.nn.Identity()
    x = 3 + 2 * torch.randn(40, 3, 6)
    seen = []
    head.norm.register_forward_hook(lambda module, given, out: seen.append(out))
    for _ in range(100):
        head(x)
    head.eval()(x)
    for out in (seen[0], seen[-1]):  # in evaluation too, once the averages have settled
        torch.testing.assert_close(out.mean(dim=0), torch.zeros(8), atol=1e-3, rtol=0)
        torch.testing.assert_close(out.std(dim=0), torch.ones(8), atol=2e-2, rtol=0)
    torch.testing.assert_close(head(x)[:1], head(x[:1]))  # a batch's company no longer matters
    head.train()
    assert not torch.allclose(head(x)[:2], head(x[:2]), atol=1e-2)


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_heads_without_a_batchnorm_are_the_same_in_training(norm):
    head = Head(6, 8, 4, norm)
    x = torch.randn(5, 3, 6)
    torch.testing.assert_close(head(x)[:1], head.train(False)(x[:1]))


def test_the_gradient_reaches_the_encoder_through_prediction_and_target_alike():
    model, images, blocks = awake(), frames(), actions()
    weight = model.encoder.out.weight

    def pull(stop_prediction: bool, stop_target: bool) -> torch.Tensor:
        z, predicted = model(images, blocks)
        predicted = predicted.detach() if stop_prediction else predicted
        target = z[:, 1:].detach() if stop_target else z[:, 1:]
        return torch.autograd.grad((predicted - target).square().mean(), weight)[0]

    through_target, through_prediction = pull(True, False), pull(False, True)
    assert through_target.abs().max() > 1e-6 and through_prediction.abs().max() > 1e-6
    torch.testing.assert_close(pull(False, False), through_target + through_prediction, atol=1e-6, rtol=1e-4)


def test_histories_that_do_not_fit_say_what_would():
    model, z = awake(), torch.zeros(B, 4, D)
    with pytest.raises(ValueError, match="at most 3"):
        model.predict(z, actions(4))
    with pytest.raises(ValueError, match="one block a latent"):
        model.predict(z[:, :2], actions(3))
    with pytest.raises(ValueError, match="2 latents with 0 blocks"):
        model.imagine(z[:, :2], actions(5))
    with pytest.raises(ValueError, match="at most 3 latents"):
        model.imagine(z, actions(5), actions(3))

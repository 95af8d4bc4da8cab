"""A model as a page has it: what is exported, and that the page computes what torch does."""

import base64

import numpy as np
import pytest
import torch
from lewm.figure_page import computed, generator, random_model

from minilab.lewm.export import exported, folded, quantized
from minilab.lewm.model import LeWM, LeWMConfig, cpu
from minilab.lewm.worlds.rooms import Rooms
from minilab.nn.vision import VisionConfig


@pytest.fixture(scope="module")
def model():
    return random_model()


def frames(n: int, T: int, seed: int = 0) -> torch.Tensor:
    return Rooms().render(Rooms().reset(n * T, generator(seed)), 32).unflatten(0, (n, T))


def keys() -> dict[str, torch.Tensor]:
    return dict(zip("abcd", torch.randn(4, 10, generator=generator(1)), strict=True))


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_folding_leaves_the_function_and_no_batch_norm(norm):
    model = random_model(head_norm=norm)
    plain = folded(model)
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in plain.modules())
    actions = torch.randn(8, 4, 10, generator=generator())
    for ours, theirs in zip(plain(frames(8, 4), actions), model(frames(8, 4), actions), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    z = model.encode(frames(8, 3))
    assert (model.predict(z, actions[:, :3]) - model.predict(z, actions[:, 1:])).abs().max() > 0.1


def test_a_rounded_weight_is_within_half_a_unit_of_its_row_and_vectors_and_steering_are_exact(model):
    before, after = folded(model).state_dict(), quantized(model).state_dict()
    for name, weight in before.items():
        if weight.ndim < 2 or name == "predictor.positions" or "steer" in name or "action" in name:
            assert torch.equal(after[name], weight)
        else:
            unit = weight.flatten(1).abs().amax(dim=1) / 127
            assert ((after[name] - weight).flatten(1).abs() <= 0.501 * unit[:, None]).all()
            assert not torch.equal(after[name], weight)


def test_the_payload_holds_the_rounded_model_but_for_what_reads_actions(model):
    payload = exported(model, keys())
    state = quantized(model).state_dict()
    stored = {kind: np.frombuffer(base64.b64decode(text), np.dtype(kind).newbyteorder("<"))
              for kind, text in payload["values"].items()}

    def tensor(kind: str, name: str) -> np.ndarray:
        begin, *shape = payload["places"][kind][name]
        return stored[kind][begin : begin + int(np.prod(shape))].reshape(shape)

    assert sum(map(len, payload["values"].values())) < 350_000
    for name, (_, *shape) in payload["places"]["int8"].items():
        scale = tensor("float32", f"{name}.scale").reshape(-1, *[1] * (len(shape) - 1))
        np.testing.assert_allclose(tensor("int8", name) * scale, state.pop(name), rtol=1e-6)
    for name, left in state.items():
        if "steer" not in name and "action" not in name:
            np.testing.assert_array_equal(tensor("float32", name), left)


@pytest.mark.parametrize("model, message", [
    (LeWM(LeWMConfig(10, VisionConfig(image=32, patch=8, width=24, depth=1, heads=2), latent=24, width=24, depth=1,
                     heads=2, head_dim=12, hidden=24, head_hidden=24)).eval(), "convolutions"),
    (LeWM(cpu(10, inner_norms=True)).eval(), "no norm inside"),
    (LeWM(cpu(10)), r"model\.eval\(\)"),
])
def test_models_that_no_page_can_run_say_why(model, message):
    with pytest.raises(ValueError, match=message):
        exported(model, keys())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"head_norm": "layer", "history": 1}, {"head_norm": "none", "latent": 64},
                                     {"head_hidden": 64, "hidden": 128, "heads": 2, "depth": 3}],
                         ids=["cpu", "layer-norm", "no-norm", "smaller"])
def test_script_computes_the_latents_and_predictions_of_torch(browser, options):
    model, page = random_model(**options), browser.new_page()
    exact, shown, N = quantized(model).double(), frames(4, 3), model.config.history
    z, blocks = exact.encode(shown), torch.stack(list(keys().values())).double()
    pressed = [[(i + t) % 4 for t in range(3)] for i in range(4)]
    found = computed(page, ("model.js",), """
        const model = worldModel(a[0]), latents = a[1].map(clip => clip.map(model.encode));
        return [latents, latents.map((zs, i) => zs.map((_, t) => {
            const window = [Math.max(0, t + 1 - model.history), t + 1];
            return model.expect(zs.slice(...window), a[2][i].slice(...window).map(key => "abcd"[key]));
        }))];""", exported(model, keys()), shown.flatten(2).tolist(), pressed)
    np.testing.assert_allclose(found[0], z, atol=1e-4)
    for t in range(3):
        window = slice(max(0, t + 1 - N), t + 1)
        expected = exact.predict(z[:, window], blocks[torch.tensor(pressed)[:, window]])[:, -1]
        np.testing.assert_allclose(np.array(found[1])[:, t], expected, atol=1e-4)
    assert z.std(dim=0).mean() > 0.1 and expected.std(dim=0).mean() > 0.1  # else any two would be close
    page.close()

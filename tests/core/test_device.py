"""Devices, seeds and threads, and that importing minilab costs next to nothing."""

import os
import random
import subprocess
import sys

import numpy
import pytest
import torch

from minilab.core import device


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MINILAB_"))}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True
    )


def test_import_loads_nothing_heavy_and_is_quick():
    code = (
        "import sys, time; start = time.perf_counter(); import minilab; took = time.perf_counter() - start\n"
        "print(took, *(m for m in ('torch', 'numpy', 'matplotlib', 'IPython', 'tqdm') if m in sys.modules))"
    )
    runs = [python(code).stdout.split() for _ in range(4)]
    assert [run[1:] for run in runs] == [[]] * 4
    assert min(float(run[0]) for run in runs) < 0.2  # the quickest: others share the machine


def test_check_is_a_function_of_the_package_whichever_module_is_imported_first():
    code = "import minilab.core.check as module; from minilab import check; print(check is module.check)"
    assert python(code).stdout.strip() == "True"


def test_wait_policy_is_passive_unless_the_user_chose():
    code = "import minilab, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert python(code).stdout.strip().lower() == "passive"
    assert python(code, OMP_WAIT_POLICY="ACTIVE").stdout.strip() == "ACTIVE"


def test_minilab_threads_reaches_torch_before_and_after_its_import():
    code = "import minilab, torch; print(torch.get_num_threads())"
    late = "import torch; torch.set_num_threads(3); import minilab; print(torch.get_num_threads())"
    assert python(code, MINILAB_THREADS="1").stdout.strip() == "1"
    assert python(late, MINILAB_THREADS="1").stdout.strip() == "1"


@pytest.mark.parametrize("asked", ["0", "two", "-1"])
def test_wrong_thread_count_is_refused(monkeypatch, asked):
    monkeypatch.setenv("MINILAB_THREADS", asked)
    with pytest.raises(ValueError, match=f"MINILAB_THREADS is '{asked}'"):
        device.configure_threads()


@pytest.mark.parametrize(
    "cuda, mps, expected", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device.pick_device() == torch.device(expected)


def test_cuda_without_a_gpu_says_what_was_found_and_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="found torch.*CUDA devices: 0") as error:
        device.pick_device("cuda")
    assert "Use cpu" in str(error.value) and torch.__version__ in str(error.value)


def test_a_gpu_number_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Card {i}")
    assert device.pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"CUDA devices: 2 \(Card 0\) \(Card 1\)"):
        device.pick_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x", ""])
def test_unknown_device_lists_the_valid_ones(name):
    with pytest.raises(ValueError, match="choose auto, cpu, mps, cuda or cuda:N"):
        device.pick_device(name)


def test_seed_fixes_python_numpy_torch_and_the_returned_generator():
    def draw():
        generator = device.seed_everything(7)
        return (
            random.random(),
            numpy.random.rand(),
            torch.rand(1).item(),
            torch.rand(1, generator=generator).item(),
        )

    first = draw()
    assert draw() == first
    device.seed_everything(8)
    assert random.random() != first[0]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_outside_numpys_range_is_refused(seed):
    with pytest.raises(ValueError, match="seed is"):
        device.seed_everything(seed)


def test_threads_are_put_back_even_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), device.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="at least 1"), device.threads(0):
        pass


def test_hardware_names_the_processor_and_the_threads():
    facts = device.hardware()
    assert facts["cpu"] and 1 <= facts["cores"] <= os.cpu_count()
    assert facts["torch_threads"] == torch.get_num_threads()
    assert ("gpus" in facts) == (torch.cuda.is_available() or torch.backends.mps.is_available())


def test_cache_follows_the_variable_then_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    assert device.cache_dir() == tmp_path
    monkeypatch.delenv("MINILAB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert device.cache_dir() == tmp_path / ".cache" / "minilab"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert device.cache_dir() == tmp_path / "Library" / "Caches" / "minilab"


def test_an_experiment_runs_with_its_presets_threads_and_puts_the_old_number_back():
    from types import SimpleNamespace

    import torch

    from minilab.core.device import with_threads

    found = with_threads(lambda preset: torch.get_num_threads())
    before = torch.get_num_threads()
    assert found(SimpleNamespace(threads=3)) == 3
    assert found(SimpleNamespace(threads=None)) == before == torch.get_num_threads()

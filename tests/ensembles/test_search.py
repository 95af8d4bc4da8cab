import math
import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest

from minilab.core.parallel import parallel_map
from minilab.ensembles.recipes import Grid, Place, for_ensembles, standard, time_scale
from minilab.ensembles.runs import Data, Outcome, Task, carry_out, is_kept, outcome
from minilab.ensembles.search import neighbors, outlook, search
from minilab.ensembles.study import QUICK
from minilab.nn.transformer import TransformerConfig

TINY = TransformerConfig(1024, dim=8, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=16, context=32,
                         tie_embeddings=False)
TASK = Task(Data(tokens=512, length=32, valid_tokens=256), TINY)
GRID = Grid(epochs=(1, 2, 4, 8), lr=(1e-3, 3e-3, 1e-2), weight_decay=(0.1, 0.4, 1.6))


def bowl(best: Place, *, seed_noise: float = 0.0):
    """Runs whose loss rises with each step of the grid away from `best`, and the list of those carried out."""
    done = []

    def carry(runs):
        done.extend(runs)
        at = [Place(run.epochs, run.hyper.lr, run.hyper.weight_decay) for run in runs]
        away = [sum(abs(getattr(GRID, axis).index(getattr(p, axis)) - getattr(GRID, axis).index(getattr(best, axis)))
                    for axis in ("epochs", "lr", "weight_decay")) for p in at]
        return [Outcome(3 + far + seed_noise * (-1) ** run.hyper.init_seed, (3.0,), None)
                for far, run in zip(away, runs, strict=True)]

    return carry, done


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # one for all: the corpus is made once
        patch.setenv("MINILAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _runs(monkeypatch, tmp_path):
    monkeypatch.setattr("minilab.ensembles.runs.runs_folder", lambda: tmp_path / "runs")


def test_inner_place_has_six_neighbors_and_a_corner_three():
    assert len(neighbors(Place(2, 3e-3, 0.4), GRID)) == 6
    assert set(neighbors(Place(1, 1e-3, 0.1), GRID)) == {Place(2, 1e-3, 0.1), Place(1, 3e-3, 0.1), Place(1, 1e-3, 0.4)}


def test_standard_recipe_moves_epochs_and_rate_alone():
    assert {p.weight_decay for p in neighbors(Place(2, 3e-3, 0.1), standard(GRID))} == {0.1}
    assert len(neighbors(Place(2, 3e-3, 0.1), standard(GRID))) == 4


@pytest.mark.parametrize("start", [Place(1, 1e-3, 1.6), Place(8, 1e-2, 0.1), Place(4, 3e-3, 0.4)])
def test_search_ends_at_the_bottom_of_a_bowl_with_a_certificate(start):
    best = Place(4, 3e-3, 0.4)
    carry, _ = bowl(best)
    found = search(TASK, start, GRID, carry=carry)
    assert found.place == best and found.certified and found.loss == 3 and found.at_edge == ()
    assert all(p in found.tried for p in neighbors(best, GRID))


def test_certificate_at_the_edge_says_so():
    carry, _ = bowl(Place(8, 3e-3, 0.1))
    assert search(TASK, Place(4, 3e-3, 0.4), GRID, carry=carry).at_edge == ("epochs", "weight_decay")


def test_search_that_is_cut_short_has_no_certificate():
    carry, _ = bowl(Place(8, 1e-2, 1.6))
    assert not search(TASK, Place(1, 1e-3, 0.1), GRID, most=2, carry=carry).certified


def test_a_place_is_judged_by_the_mean_of_its_seeds():
    carry, done = bowl(Place(4, 3e-3, 0.4), seed_noise=5.0)
    assert search(TASK, Place(2, 3e-3, 0.4), GRID, seeds=(0, 1), carry=carry).loss == pytest.approx(3)
    assert {run.hyper.init_seed for run in done} == {0, 1}


def test_diverged_places_lose_and_a_search_with_nothing_else_refuses():
    carry, _ = bowl(Place(4, 3e-3, 0.4))

    def fast_ones_diverge(runs):
        return [Outcome(math.nan, (), 3) if run.hyper.lr > 2e-3 else found
                for run, found in zip(runs, carry(runs), strict=True)]

    assert search(TASK, Place(4, 3e-3, 0.4), GRID, carry=fast_ones_diverge).place == Place(4, 1e-3, 0.4)
    with pytest.raises(ValueError, match="lower learning rate"):
        search(TASK, Place(4, 1e-2, 0.4), GRID, carry=lambda runs: [Outcome(math.nan, (), 3)] * len(runs))


def test_search_trains_what_is_missing_and_a_second_one_nothing(monkeypatch):
    grid = Grid(epochs=(1, 2), lr=(3e-3, 1e-2), weight_decay=(0.1,))
    found = search(TASK, Place(1, 3e-3, 0.1), grid)
    assert found.certified
    monkeypatch.setattr("minilab.ensembles.runs.train_members", None)
    assert search(TASK, Place(1, 3e-3, 0.1), grid) == found


def test_outlook_of_a_search_not_begun_is_its_first_move():
    runs, found = outlook(TASK, Place(1, 3e-3, 0.1), Grid((1, 2, 4), (3e-3,), (0.1,)), seeds=(0, 1))
    assert [(run.epochs, run.hyper.init_seed) for run in runs] == [(1, 0), (1, 1), (2, 0), (2, 1)] and found is None


def test_outlook_follows_a_search_that_was_broken_off_to_the_move_it_would_make_next():
    grid, start, moves = Grid((1, 2, 4, 8), (1e-2,), (0.1,)), Place(1, 1e-2, 0.1), []

    def broken_off_at(move):
        def carry(runs):
            moves.append({run.epochs for run in runs if not is_kept(run)})
            if moves[-1] and sum(map(bool, moves)) > min(move, 1):  # one move more is trained each time
                raise KeyboardInterrupt
            return carry_out(runs, device="cpu")
        return carry

    for move in range(3):  # a tiny model gains from each further epoch, so each move trains one number of epochs more
        moves.clear()
        with pytest.raises(KeyboardInterrupt):
            search(TASK, start, grid, carry=broken_off_at(move))
        runs, found = outlook(TASK, start, grid)
        assert found is None and {run.epochs for run in runs if not is_kept(run)} == moves[-1]
        assert len(runs) == len(set(runs)) == 2 + move
    ended = search(TASK, start, grid)
    runs, found = outlook(TASK, start, grid)
    assert found == ended and found.place.epochs == 8 and all(map(is_kept, runs))
    assert {run.epochs: outcome(run).valid for run in runs} == {p.epochs: loss for p, loss in ended.tried.items()}


def test_place_off_the_grid_and_grid_out_of_order_are_refused():
    with pytest.raises(ValueError, match="begin on the grid"):
        neighbors(Place(3, 3e-3, 0.1), GRID)
    with pytest.raises(ValueError, match="in their order"):
        Grid(lr=(1e-2, 1e-3))


def test_time_scale_of_the_papers_places():
    # 209,715,200 tokens in windows of 4,096 and batches of 64: 800 steps an epoch; the sheet computes 0.52 and 0.26.
    paper = Task(Data(209_715_200, length=4096), TINY, batch=64)
    assert time_scale(paper, Place(16, 3e-3, 0.8)) == pytest.approx(0.52, abs=0.005)
    assert time_scale(paper, Place(16, 3e-3, 1.6)) == pytest.approx(0.26, abs=0.005)
    assert time_scale(paper, replace(Place(16, 3e-3, 1.6), weight_decay=0.0)) == math.inf


def test_rule_for_ensembles_takes_the_papers_300m_place_to_its_ensemble_place():
    assert for_ensembles(Place(16, 3e-3, 1.6)) == Place(32, 3e-3, 0.8)


@pytest.fixture
def ray_cluster():
    """A Ray cluster of two cores on this machine."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # A node that finds its ports by itself gives up after 15 seconds, which a busy machine exceeds.
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for some in sockets:
            some.bind(("", 0))
        ports = {name: some.getsockname()[1] for name, some in zip(names, sockets, strict=True)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **ports})
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_search_by_two_workers_of_a_ray_cluster_finds_what_one_process_finds(monkeypatch, tmp_path, ray_cluster):
    workers = set()

    def watched(train, groups, **options):
        for worker, result in parallel_map(lambda group: (os.getpid(), train(group)), groups, **options):
            workers.add(worker)
            yield result

    grid = Grid(epochs=(1, 2), lr=(3e-3, 1e-2), weight_decay=(0.1,))
    here = search(TASK, Place(1, 3e-3, 0.1), grid, carry=partial(carry_out, device="cpu"))
    monkeypatch.setattr("minilab.ensembles.runs.parallel_map", watched)
    study = replace(QUICK, workers=2, engine="ray")
    monkeypatch.setattr("minilab.ensembles.runs.runs_folder", lambda: tmp_path / "ray")
    there = search(TASK, Place(1, 3e-3, 0.1), grid, carry=lambda runs: study.carry(runs, "cpu"))
    assert there == here
    assert len(workers) == 2 and os.getpid() not in workers

"""The benchmarks' claims in small: one seed, a fraction of the data or training, directions with a margin."""

import math
import sys

import pytest
import torch

from ...places import ROOT

TOOLS = str(ROOT / "tools")
if TOOLS not in sys.path:
    sys.path.append(TOOLS)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_learnt_power_beats_linear_softmax_and_its_exponents_fall_with_duration():
    from pooling_benchmarks import sounds

    linear = sounds.run("linear_softmax", 1)
    power = sounds.run("power, lambda 0.01", 1)
    assert power["event_f1"] - linear["event_f1"] > 0.02
    assert power["rho(exponent, duration)"] < -0.8


def test_learnt_r_beats_mean_and_max_and_never_falls_under_bag_instance_loss():
    from pooling_benchmarks import adaptive

    learnt = adaptive.run("LearnP, bag+instance, lambda 0.1", 1, epochs=25)
    assert learnt["epochs in which an r fell"] == 0 and learnt["gradients that lower r"] == 0
    for pool in ("AveP", "MaxP"):
        assert learnt["map"] - adaptive.run(f"{pool}, bag+instance, lambda 0.1", 1, epochs=25)["map"] > 0.02
    bag = adaptive.run("LearnP, bag loss", 1, epochs=10)
    assert bag["gradients that lower r"] > 0


def test_second_order_pooling_binds_objects_to_actors():
    from pooling_benchmarks import binding

    assert binding.run("one actor: rank 1", 1)["accuracy"] - binding.run("one actor: average", 1)["accuracy"] > 0.5
    rank_1, rank_2 = (binding.run(f"two actors: rank {rank}", 1)["accuracy"] for rank in (1, 2))
    assert rank_2 > 0.95 and rank_2 - rank_1 > 0.05


def test_choosing_is_by_the_development_score_alone():
    import bench_pooling
    from pooling_benchmarks import sounds

    a, b, c = sounds.CHOICES["power, learnt n, lambda chosen on dev"]
    runs = {name: [{"dev_event_f1": 0.5, "event_f1": 0.5}] * 2 for names in sounds.CHOICES.values() for name in names}
    runs[a] = [{"dev_event_f1": 0.9, "event_f1": 0.1}, {"dev_event_f1": 0.1, "event_f1": 0.9}]
    chosen = bench_pooling.choose(sounds, runs)["power, learnt n, lambda chosen on dev"]
    assert [result["event_f1"] for result in chosen] == [0.1, 0.5]
    assert bench_pooling.summary([1.0, 3.0, math.nan]) == {"mean": 2.0, "spread": pytest.approx(math.sqrt(2))}

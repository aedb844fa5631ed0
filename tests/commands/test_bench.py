"""`wtal bench`: what it prints is what was measured, and its loops find what the code finds."""

import json
import time

import pytest

from wtal.commands.bench import STAGES, page
from wtal.commands.bench_stages import by_name
from wtal.commands.bench_stages.detections import draw_detections, evaluation_loop
from wtal.commands.bench_stages.measure import Bench, Row, flops_of
from wtal.commands.main import main


@pytest.fixture
def bench(tmp_path):
    import torch

    threads = torch.get_num_threads()
    yield Bench(quick=True, cpu_time=True, folder=tmp_path)
    torch.set_num_threads(threads)


def test_the_command_names_the_stages_there_are():
    assert tuple(by_name.STAGES) == STAGES


def test_an_unknown_stage_is_refused(capsys):
    assert main(["bench", "trainig"]) == 2
    said = capsys.readouterr().err
    assert "unknown stage 'trainig'; allowed: decode, flow" in said


def test_figures_as_json(capsys, bench, monkeypatch):
    monkeypatch.setattr("wtal.commands.bench_stages.measure.PRODUCT", 64)
    assert main(["bench", "decode", "--quick", "--cpu-time", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in found["rows"]] == ["decode", "decode"]
    assert found["machine"]["threads"] == 1 and found["machine"]["versions"]["torch"]
    assert min(found["machine"]["ceilings"].values()) > 0
    for row in found["rows"]:
        assert row["fraction"] == pytest.approx(row["achieved"] / row["ceiling"]) and row["fraction"] > 0


@pytest.mark.parametrize("stage,rows", [("i3d", 1), ("pipeline", 1), ("scoring", 1), ("report", 1)])
def test_stages_run_on_small_networks(bench, monkeypatch, stage, rows):
    monkeypatch.setattr("wtal.commands.bench_stages.measure.PRODUCT", 64)
    monkeypatch.setattr("wtal.commands.bench_stages.videos.NETWORK_WIDTH", 1 / 16)
    monkeypatch.setattr("wtal.commands.bench_stages.training.DIMS", {"rgb": 8, "flow": 8, "clip": 512})
    found = list(by_name.STAGES[stage](bench))
    assert [row.stage for row in found] == [stage] * rows
    assert all(row.achieved > 0 and row.fraction > 0 for row in found)


def test_a_training_step_of_each_phase_is_a_row_and_scoring_goes_on_from_there(bench, monkeypatch):
    monkeypatch.setattr("wtal.commands.bench_stages.measure.PRODUCT", 64)
    monkeypatch.setattr("wtal.commands.bench_stages.training.DIMS", {"rgb": 8, "flow": 8, "clip": 512})
    monkeypatch.setattr("wtal.commands.bench_stages.training.BRANCHES", ("transformer", "convolution"))
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    monkeypatch.setattr("wtal.commands.bench_stages.training.TEXT", text)
    named = [row.what.split(",")[:2] for row in by_name.STAGES["training"](bench)]
    assert named == [
        ["transformer", " warmup"],
        ["VLP", " B"],
        ["VLP with learnt prompts", " B"],
        ["transformer", " F"],
        ["convolution", " warmup"],
        ["convolution", " F"],
    ]
    assert list(by_name.STAGES["scoring"](bench))


def test_the_page_says_fraction_and_ratio():
    about = {"processor": "P", "vectors": "V", "device": "cpu", "threads": 2, "clock": "wall clock", "load": 0.1,
             "system": "S", "versions": {"torch": "2"}, "ceilings": {"copy, GB/s": 10.0}}  # fmt: skip
    rows = [Row("flow", "TV-L1", 3.0, "pairs", 12.0, "copying", 7.5, "OpenCV"), Row("report", "pages", 5.0, "pages")]
    lines = page(about, rows).splitlines()
    assert lines[-2] == "| flow | TV-L1 | 3 pairs/s | 12 (copying) | 0.25 | 7.50 | OpenCV |"
    assert lines[-1] == "| report | pages | 5 pages/s |  |  |  |  |"


def test_works_take_turns_and_the_median_counts(bench):
    order = []

    def spin(name):
        order.append(name)
        until = time.process_time() + {"a": 0.01, "b": 0.03}[name]
        while time.process_time() < until:
            pass

    took = bench.seconds({name: lambda name=name: spin(name) for name in "ab"}, 3)
    assert order == list("ababab")
    assert 0.01 <= took["a"] and 0.03 <= took["b"]


def test_a_ceiling_counts_the_operations_of_products():
    import torch

    assert flops_of(lambda: torch.ones(3, 4) @ torch.ones(4, 5)) == 2 * 3 * 4 * 5


def test_the_published_loop_gives_the_map_of_the_evaluator(bench):
    from wtal.commands.bench_stages.detections import TIOU
    from wtal.evaluation.detection.protocols import detection_map

    ground_truth, predictions = draw_detections(1000)
    own = detection_map(ground_truth, predictions, "activitynet", TIOU)
    assert own.detections == 1000
    assert own.mAP == pytest.approx(evaluation_loop(ground_truth, predictions), abs=1e-12)

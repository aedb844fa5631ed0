"""The predictions of `wtal extract --dry-run`: closed forms of the model."""

import json

import pytest

from feature_extraction.pipeline import cost
from feature_extraction.pipeline.cost import PartCost, Workload, predict, text
from feature_extraction.settings import ExtractionSettings

SETTINGS = ExtractionSettings(fps=20.0, stride=10)


@pytest.fixture(autouse=True)
def loads(monkeypatch):
    monkeypatch.setattr(cost, "WORKLOADS", (Workload("a", 10, 100.0), Workload("b", 20, 300.0)))


def test_cores_share_the_work_and_a_gpu_does_it_while_cores_decode(monkeypatch):
    monkeypatch.setattr(cost, "DECODED", 200 * cost.SOURCE_PIXELS)  # 200 frames a second: 0.1 s of a core a second
    # two snippets a second of 0.5 s and 10^12 operations; 20 pairs a second of 0.05 s and 68 thousand pixels
    parts = {"rgb": PartCost(0.5, 2.0, 1e12), "flow": PartCost(0.05, 20.0, 0, 68_000)}
    a, b = predict(parts, SETTINGS, on_gpu=False)
    assert a.laptop == pytest.approx(100 * (2 * 0.5 + 20 * 0.05 + 0.1) / 8)
    a_second = 2 * 1e12 / cost.AIM_FLOPS + 20 * 68_000 / cost.AIM_PAIRS
    assert a_second > 0.1 / 8
    assert a.one_gpu == pytest.approx(100 * a_second) and a.eight_gpus == pytest.approx(a.one_gpu / 8)
    assert (b.laptop, b.one_gpu, b.eight_gpus) == pytest.approx((3 * a.laptop, 3 * a.one_gpu, 3 * a.eight_gpus))


def test_a_gpu_waits_for_decoding_where_that_takes_longer(monkeypatch):
    monkeypatch.setattr(cost, "DECODED", 20 * cost.SOURCE_PIXELS)  # as long as the video
    quick = {"rgb": PartCost(0.5, 2.0, 1e9)}
    assert predict(quick, SETTINGS, on_gpu=False)[0].one_gpu == pytest.approx(100 / cost.DECODING_CORES)


def test_on_a_gpu_its_own_speed_counts_and_nothing_is_said_of_a_laptop():
    (a, b) = predict({"rgb": PartCost(0.02, 2.0, 0)}, SETTINGS, on_gpu=True)
    assert a.laptop is None and a.one_gpu == pytest.approx(100 * 0.04)
    said = text([a, b], on_gpu=True)
    assert "GPU: from this one" in said and "cores" not in said
    assert "b (20 videos, 300 hours): 12.0 hours on one GPU, 1.5 hours on eight" in said


def test_a_dry_run_calls_its_prediction_one(tmp_path, write_video, gray_steps, monkeypatch):
    import torch

    from feature_extraction.pipeline import dry_run

    write_video(tmp_path / "clip.mp4", gray_steps(40))
    settings = ExtractionSettings(streams=("clip",), fps=10.0, window=8, stride=8, clip_model="x", clip_frames=2)
    parts = {"clip": PartCost(0.001, 2.5, 1e9)}
    monkeypatch.setattr(dry_run, "load_towers", lambda *rest: {})
    monkeypatch.setattr(dry_run, "part_costs", lambda *rest: parts)
    monkeypatch.setattr(dry_run, "pick_device", lambda name: torch.device("cpu"))

    class Nothing:
        shape = (4,)

        def holds(self, *rest):
            return False

    monkeypatch.setattr(dry_run, "load_towers", lambda *rest: {"clip": None})
    monkeypatch.setattr(dry_run, "identity", lambda *rest: {})
    monkeypatch.setattr(dry_run, "open_stream_of", lambda *rest: Nothing())
    plan = dry_run.plan(tmp_path, tmp_path / "out", settings)
    frames = round(plan.hours * 3600 * 10)
    snippets = -(-max(0, frames - 8) // 8) + 1
    assert plan.seconds == pytest.approx(snippets * 2 * 0.001 / dry_run.usable_cores())
    said = plan.text(False).splitlines()
    assert said[1] == plan.summary() and said[2].startswith("prediction, not measured") and len(said) == 5
    told = json.loads(plan.text(True))["predictions"]
    assert [each["name"] for each in told] == ["a", "b"] and told[0]["laptop"] == predict(parts, settings, False)[
        0
    ].laptop

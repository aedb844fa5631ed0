"""Extraction on a local Ray of two workers, one of which is killed."""

from pathlib import Path

import pytest
import torch

from feature_extraction.errors import UserError
from feature_extraction.flow.settings import TVL1Settings
from feature_extraction.networks.i3d import I3D, save_i3d
from feature_extraction.pipeline.ray import RaySettings, _check_room, _Worker, extract_on_ray, resolved
from feature_extraction.pipeline.run import ExtractionSummary, Extractor, extract
from feature_extraction.settings import ExtractionSettings
from wtal.commands.main import main


def contents(store):
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file() and ".work" not in path.parts
    }


def test_shipped_places_become_paths():
    settings = ExtractionSettings(i3d_rgb="shipped:a", clip_pretrained=None)
    places = resolved(settings, lambda place: "/there/" + place.removeprefix("shipped:"))
    assert places.i3d_rgb == "/there/a" and places.clip_pretrained is None


def test_settings_are_checked():
    with pytest.raises(UserError, match="at least 1"):
        RaySettings(workers=0)
    with pytest.raises(UserError, match="gpus"):
        RaySettings(gpus=-1)


def test_workers_that_could_never_start_are_refused(capsys):
    """Ray itself waits for ever: 2 GPUs hold 4 halves, 2 shares of 0.6, and no worker of 4."""
    machine = {"CPU": 8.0, "GPU": 2.0}
    for workers, gpus, cpus in ((2, 1, 1), (4, 0.5, 2), (2, 0.6, 1), (6, 1 / 3, 1), (8, 0, 1)):
        _check_room(machine, RaySettings(workers=workers, gpus=gpus, cpus=cpus))
    for workers, gpus, cpus in ((3, 1, 1), (5, 0.5, 1), (3, 0.6, 1), (1, 4, 1)):
        with pytest.raises(UserError, match="2 GPUs for"):
            _check_room(machine, RaySettings(workers=workers, gpus=gpus, cpus=cpus))
    with pytest.raises(UserError, match="0 GPUs for 2 workers of 0.5 each"):
        _check_room({"CPU": 2.0}, RaySettings(gpus=0.5))
    with pytest.raises(UserError, match="CPU cores"):
        _check_room(machine, RaySettings(workers=5, cpus=2))
    assert capsys.readouterr().err == ""
    _check_room({"CPU": 2.0}, RaySettings(gpus=0.5, address="auto"))
    assert "waiting for more" in capsys.readouterr().err


def test_ray_workers_keep_to_their_cores(tmp_path, monkeypatch):
    seen = []

    class Recorded:
        def __init__(self, settings, towers, device, cores=None):
            seen.append(cores)

    monkeypatch.setattr("feature_extraction.pipeline.run.Extractor", Recorded)
    monkeypatch.setattr("feature_extraction.networks.towers.load_towers", lambda *_: {})
    _Worker(ExtractionSettings(device="cpu"), str(tmp_path), None, True, 3)
    assert seen == [3]
    assert Extractor(ExtractionSettings(), {}, torch.device("cpu"), 1).cores == 1


def test_ray_knows_nothing_of_the_shard_of_the_process_that_asks(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "feature_extraction.pipeline.ray.extract_on_ray",
        lambda videos, *_, **__: asked.append(videos) or ExtractionSummary({}),
    )
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    command = ["extract", str(tmp_path), "--out", str(tmp_path / "out"), "--runner", "ray"]
    assert main(command) == 0 and asked == [[str(tmp_path)]]
    assert main([*command, "--shard", "1/2"]) == 2


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_worker_is_replaced_and_the_store_is_that_of_one_process(tmp_path, write_video, gray_steps):
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
    (tmp_path / "in").mkdir()
    for number in range(24):
        write_video(tmp_path / "in" / f"{number:02}.mp4", gray_steps(17 + number % 3, step=1 + number % 5))
    (tmp_path / "in" / "bad.mp4").write_text("no video")
    torch.manual_seed(0)
    for name, channels in (("rgb", 3), ("flow", 2)):
        save_i3d(I3D(channels, 4, 0.0625), tmp_path / f"{name}.safetensors")
    settings = ExtractionSettings(
        streams=("rgb", "flow"), short_side=32, crop=None, precision="fp32", device="cpu",
        i3d_rgb=str(tmp_path / "rgb.safetensors"), i3d_flow=str(tmp_path / "flow.safetensors"),
        flow=TVL1Settings(scales=1, warps=1, inner_iterations=2, outer_iterations=1, median=1),
    )  # fmt: skip
    killed = []

    def kill_once(finished, workers):
        if finished == 1 and not killed:
            killed.append(ray.kill(workers[1], no_restart=False))

    summary = extract_on_ray(
        tmp_path / "in", tmp_path / "by ray", settings, RaySettings(workers=2), on_progress=kill_once
    )
    extract(tmp_path / "in", tmp_path / "by one", settings, progress=False)
    assert killed
    assert sorted({*summary.done, *summary.present}) == [f"{number:02}" for number in range(24)]
    assert set(summary.failed) == {"bad"}
    assert contents(tmp_path / "by ray") == contents(tmp_path / "by one")

"""Extraction on a local Ray of two workers, one of which is killed."""

from pathlib import Path

import pytest
import torch

from feature_extraction.errors import UserError
from feature_extraction.flow_settings import TVL1Settings
from feature_extraction.i3d import I3D, save_i3d
from feature_extraction.pipeline import extract
from feature_extraction.ray_runner import RaySettings, extract_on_ray, resolved
from feature_extraction.settings import ExtractionSettings


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

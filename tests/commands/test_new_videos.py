"""`wtal predict --video`: rendered videos through extraction, one and several CLIP models, to the run's own detections.

The run's test videos are given as new ones: what comes out must be what the run says of them from its own store.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from feature_extraction.networks.clip import load_clip, save_clip
from feature_extraction.pipeline.run import extract
from wtal.commands.main import main
from wtal.config.load import config_of_run, load_config
from wtal.config.sandbox import SandboxSettings
from wtal.config.shipped import resolve
from wtal.config.strict import dump
from wtal.datasets.sandbox.render import render_world
from wtal.training.run import train

WORLD = SandboxSettings(training_videos=2, test_videos=2, min_seconds=18.0, max_seconds=24.0)
QUICK = [
    "cbp.streams=[rgb]", "cbp.width=16", "cbp.heads=2", "vlp.text=template", "vlp.heads=2", "vlp.layers=1",
    "schedule.warmup_steps=4", "schedule.rounds=1", "schedule.b_steps=2", "schedule.f_steps=2",
    "optimizer.batch=2", "optimizer.snippets=40",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A world, a second CLIP model of another width, and features of both in one store."""
    folder = tmp_path_factory.mktemp("several")
    render_world(folder / "world", WORLD)
    base = load_config("sandbox", ["extraction.streams=[rgb, clip]"])
    content = json.loads(Path(resolve("shipped:clip.json")).read_text())
    (folder / "second.json").write_text(json.dumps({**content, "embed_dim": 32}))
    torch.manual_seed(3)
    save_clip(load_clip(str(folder / "second.json"), None, torch.device("cpu")), folder / "second.safetensors")
    own = extract(folder / "world" / "videos", folder / "features", base.extraction, resolve=resolve)
    second = dataclasses.replace(
        base.extraction, streams=("clip",), clip_model=str(folder / "second.json"),
        clip_pretrained=str(folder / "second.safetensors"),
    )  # fmt: skip
    other = extract(folder / "world" / "videos", folder / "features", second)
    return folder, own.streams["clip"].name, other.streams["clip"].name


@pytest.fixture(scope="module")
def run(place):
    folder, first, second = place
    more = {
        "stream": second, "clip_model": str(folder / "second.json"),
        "clip_pretrained": str(folder / "second.safetensors"),
    }  # fmt: skip
    config = load_config("sandbox", [
        f"out={folder / 'run'}", f"data.annotations={folder / 'world' / 'annotations.json'}",
        f"data.features={folder / 'features'}", f"data.streams=[rgb, {first}, {second}]",
        f"vlp.more={json.dumps([more])}", *QUICK,
    ])  # fmt: skip
    trained, excluded = train(config)
    assert not excluded
    return trained


def given_videos(place) -> list[str]:
    return sorted(str(path) for path in (place[0] / "world" / "videos").glob("test_*"))


@pytest.mark.parametrize("overrides", [[], ["inference.fusion=weighted", "inference.fusion_weight=0.3"]])
@pytest.mark.parametrize("row", ["ours", "vlp", "vlp_raw"])
def test_new_videos_get_what_the_run_says_of_its_own(row, overrides, place, run, capsys):
    folder = place[0]
    command = ["predict", str(run.path), *overrides, "--row", row, "--out"]
    assert main([*command, str(folder / "own.json")]) == 0
    assert main([*command, str(folder / "new.json"), "--video", *given_videos(place)]) == 0, capsys.readouterr().err
    own, new = (json.loads((folder / f"{name}.json").read_text())["results"] for name in ("own", "new"))
    assert new == own and len(own) == 2 and all(own.values())
    # both models' streams, and no flow, which the run does not read
    assert sorted(path.name for path in (run.path / "features-new").glob("*-*")) == sorted(
        path.name for path in (folder / "features").glob("*-*")
    )


def test_the_second_model_is_heard(place, run):
    folder, first, _ = place
    command = ["predict", str(run.path), "--row", "vlp_raw", "--video", *given_videos(place), "--out"]
    assert main([*command, str(folder / "two.json")]) == 0
    config = config_of_run(run.path)
    alone = dataclasses.replace(
        config,
        out=str(folder / "alone"),
        vlp=dataclasses.replace(config.vlp, more=()),
        data=dataclasses.replace(config.data, streams=("rgb", first)),
    )
    trained, _ = train(alone)
    command[1] = str(trained.path)
    assert main([*command, str(folder / "one.json")]) == 0
    assert (folder / "one.json").read_text() != (folder / "two.json").read_text()


def changed_run(place, run, name: str, vlp: dict, more: dict) -> str:
    """A copy of the run whose VLP branch and second model are described in another way."""
    copy = shutil.copytree(run.path, place[0] / name)
    config = yaml.safe_load(dump(config_of_run(run.path)))
    config["vlp"] |= {**vlp, "more": [{**config["vlp"]["more"][0], **more}]}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    return str(copy)


def test_a_model_that_nobody_knows_is_refused_before_any_extraction(place, run, monkeypatch, capsys):
    monkeypatch.setattr("feature_extraction.pipeline.run.extract", lambda *a, **k: pytest.fail("extracted"))
    own, texts = config_of_run(run.path).extraction, {"text_embeddings": "texts.npz"}
    same = {"clip_model": own.clip_model, "clip_pretrained": own.clip_pretrained}
    cases = {
        "clip_model and clip_pretrained of stream": ({"text": "precomputed", **texts}, {"clip_model": None, **texts}),
        "name one CLIP model": ({}, same),
    }
    for number, (message, (vlp, more)) in enumerate(cases.items()):
        copy = changed_run(place, run, f"copy{number}", vlp, more)
        assert main(["predict", copy, "--video", *given_videos(place), "--out", str(place[0] / "x.json")]) == 2
        shown = capsys.readouterr().err
        assert message in shown and len(shown.strip().splitlines()) == 1


def test_a_broken_video_is_named_and_the_others_are_done(place, run, capsys):
    folder = place[0]
    (folder / "broken.mp4").write_bytes(b"no video")
    given = [given_videos(place)[0], str(folder / "broken.mp4")]
    assert main(["predict", str(run.path), "--video", *given, "--out", str(folder / "some.json")]) == 3
    assert "1 videos could not be read: broken" in capsys.readouterr().err
    assert list(json.loads((folder / "some.json").read_text())["results"]) == ["test_000"]

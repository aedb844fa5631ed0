"""Figures that `wtal predict` keeps: equal to measured ones, and measured anew when anything behind them changes."""

import json

import numpy as np
import pytest

from feature_extraction.errors import UserError
from feature_extraction.files import read_json, write_json, write_sealed
from wtal.datasets.features import open_features
from wtal.inference.score_file import NUMBERS, ScoreFile
from wtal.runs import predict, remembered
from wtal.runs.measure import measure
from wtal.runs.predict import predict_run
from wtal.training.folder import load_checkpoint, save_checkpoint
from wtal.training.run import train

SMALL = {"schedule": {"warmup_steps": 20, "rounds": 1, "b_steps": 2, "f_steps": 2}}
ROWS = ["cbp_warmup", "vlp_raw", "vlp", "ours"]


@pytest.fixture
def asked(monkeypatch):
    """The rows that are measured, in a list that `predict_run` fills."""
    rows = []

    def counted(localizer, row, *rest):
        rows.append(row)
        return measure(localizer, row, *rest)

    monkeypatch.setattr(predict, "measure", counted)
    return rows


@pytest.fixture
def run(make_config, world, asked):
    folder, _ = train(make_config(**SMALL))
    predict_run(folder, folder.predictions, "ours", (), None)
    assert asked == ROWS
    asked.clear()
    return folder


def again(run, asked, row="ours", **more):
    """The rows that another `wtal predict` measures."""
    asked.clear()
    predict_run(run, more.get("out", run.predictions), row, more.get("overrides", ()), None)
    return list(asked)


def test_a_second_prediction_measures_nothing_and_says_the_same(run, asked, world, tmp_path):
    summary, predictions = run.summary.read_bytes(), run.predictions.read_bytes()
    assert again(run, asked, out=tmp_path / "found.json") == []
    assert run.summary.read_bytes() == summary and run.predictions.read_bytes() == predictions
    assert (tmp_path / "found.json").read_bytes() == predictions
    # another row's detections, and other settings, leave what is known alone
    assert again(run, asked, row="vlp", out=tmp_path / "vlp.json") == []
    assert again(run, asked, out=tmp_path / "low.json", overrides=["inference.class_threshold=0.1"]) == []
    assert run.summary.read_bytes() == summary and again(run, asked) == []


def test_each_thing_behind_the_figures_makes_them_anew(run, asked, world, monkeypatch, make_config):
    # the truth of a test video, and of a training video (which choose a threshold)
    for subset in ("validation", "training"):
        content = json.loads((world / "annotations.json").read_text())
        video = next(v for v in content["database"].values() if v["subset"] == subset)
        video["annotations"][0]["segment"][1] -= 0.7
        (world / "annotations.json").write_text(json.dumps(content))
        assert again(run, asked) == ROWS and again(run, asked) == []
    # a training video's features, written anew with other numbers
    features = open_features(make_config().data)
    stream = features.streams["rgb"]
    video_id = next(v for v in features.ids() if v.startswith("training"))
    stream.write(video_id, np.array(stream.read(video_id)) * 1.5, stream.sidecar(video_id))
    assert again(run, asked) == ROWS and again(run, asked) == []
    # one row's weights
    state = load_checkpoint(run.place("warmup"))
    name = next(key for key, value in state["cbp"].items() if value.is_floating_point() and value.ndim == 2)
    state["cbp"][name] = state["cbp"][name] * 1.1
    save_checkpoint(run.place("warmup"), state)
    assert again(run, asked) == ["cbp_warmup"] and again(run, asked) == []
    # one row's scores, of the same weights
    file = ScoreFile(run.scores("vlp"))
    file.extend(file.made, [(v, file[v]) for v in reversed(list(file))][:1])
    assert again(run, asked) == []  # the same numbers at another place
    # the program
    monkeypatch.setattr(remembered, "_code", lambda: "another")
    assert again(run, asked) == ROWS and again(run, asked) == []


def test_damage_to_scores_is_noticed_though_their_figures_are_known(run, asked):
    path = run.scores("vlp") / NUMBERS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        again(run, asked)


def test_a_damaged_memory_is_as_good_as_none(run, asked):
    summary, known = run.summary.read_bytes(), run.measured.read_text()
    assert known.count('"from"') == len(ROWS)
    for content in ("", "{", known.replace('"mAP"', '"map"', 1), known[: len(known) // 2], "[1]", '{"ours": 3}'):
        run.measured.write_text(content)
        assert again(run, asked) == ROWS
        assert run.summary.read_bytes() == summary and run.measured.read_text() == known
    # without its seal, and of a version that keeps something else there
    write_json(run.measured, {row: {"from": own["from"]} for row, own in read_json(run.measured).items()})
    assert again(run, asked) == ROWS
    write_sealed(run.measured, {"ours": [1]})
    assert again(run, asked) == ROWS and run.summary.read_bytes() == summary

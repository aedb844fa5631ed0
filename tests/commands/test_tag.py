"""Tags as a product: train, tag, explain, measure, choose classes; and what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from wtal.commands.main import main
from wtal.config.strict import dump
from wtal.datasets.formats.tags import Tags, VideoTags, read_tags, write_tags

from ..fixtures.world import CLASSES, make_world, world_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A generated world with its configuration, and two taggers of it: one logistic, one recurrent."""
    root = tmp_path_factory.mktemp("tagged")
    make_world(root, training=18, test=9)
    (root / "my.yaml").write_text(dump(world_config(root)), encoding="utf-8")
    base = ["train-video-classifier", str(root / "my.yaml"), "--set", "model.hidden=16", "--set", "model.clusters=4"]
    recipes = {
        "vlad": ["epochs=30", "model.classifier=logistic", "stream_dropout=0.3", "batch=6"],
        "gru": ["epochs=20", "model.aggregation=gru", "model.join=late", "batch=6"],
    }
    for name, recipe in recipes.items():
        sets = [word for setting in recipe for word in ("--set", setting)]
        assert main([*base, *sets, "data.streams=[rgb,flow]", "--out", str(root / name)]) == 0
    return root


def call(capsys, *words):
    code = main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_tags_are_measured_and_tell_the_classes(trained, tmp_path, capsys):
    out = tmp_path / "tags.json"
    assert call(capsys, "tag", trained / "vlad", "--out", out)[0] == 0
    tags = read_tags(out)
    assert sorted(tags.videos) == [f"validation_{n:02d}" for n in range(18, 27)] and tags.classes == CLASSES
    code, said, note = call(capsys, "evaluate", out, trained / "annotations.json", "--videos", "--json",
                            "--subset", "validation")  # fmt: skip
    values = json.loads(said)["videos"]
    summary = json.loads((trained / "vlad" / "summary.json").read_text())
    assert code == 0 and "no times" in note and set(values["AP"]) == set(CLASSES)
    assert values["mAP"] == pytest.approx(summary["video_map"]) and values["mAP"] > 0.9
    assert values["gap"] == pytest.approx(summary["gap"]) and values["perr"] == pytest.approx(summary["perr"])
    code, _, said = call(capsys, "evaluate", out, trained / "annotations.json")
    assert code == 2 and "--videos" in said
    # all videos of the store, as a table; the same numbers
    table = tmp_path / "tags.csv"
    assert call(capsys, "tag", trained / "vlad", "--features", trained / "features", "--out", table, "--top", 2)[0] == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 27 * 2 and list(rows[0]) == ["video", "label", "score"]
    score = next(float(row["score"]) for row in rows if row["video"] == "validation_20")
    assert score == pytest.approx(tags.videos["validation_20"].surest(1)[0][1], rel=1e-5)


def test_relevance_lies_where_the_action_is_and_adds_up(trained, tmp_path, capsys):
    from wtal.datasets.annotations import read_activitynet

    out = tmp_path / "tags.json"
    assert call(capsys, "tag", trained / "vlad", "--out", out, "--explain", 1)[0] == 0
    truth, inside, outside = read_activitynet(trained / "annotations.json"), [], []
    for video_id, video in read_tags(out).videos.items():
        (label, score), found = video.surest(1)[0], video.relevance
        bias, part_T = found.additive[label]
        assert bias + part_T.sum() == pytest.approx(np.log(score / (1 - score)), abs=1e-3)
        fall_T = found.leave_one_out[label]
        assert len(fall_T) == len(part_T) == round(video.duration / found.snippet_seconds)
        middle_T = (np.arange(len(fall_T)) + 0.5) * found.snippet_seconds
        in_T = np.any([(i.start <= middle_T) & (middle_T < i.end) for i in truth.videos[video_id].instances], axis=0)
        inside.append(fall_T[in_T].mean())
        outside.append(fall_T[~in_T].mean())
    assert np.mean(inside) > np.mean(outside)


def test_an_ensemble_is_the_mean_and_a_recurrent_one_is_explained(trained, tmp_path, capsys):
    files = {}
    for name, runs in {"vlad": ["vlad"], "gru": ["gru"], "both": ["vlad", "gru"]}.items():
        code, _, said = call(capsys, "tag", *(trained / run for run in runs), "--out", tmp_path / f"{name}.json",
                             "--explain", 2)  # fmt: skip
        assert code == 0 and ("no additive form" in said) == ("gru" in runs)
        files[name] = read_tags(tmp_path / f"{name}.json")
    for video_id in files["both"].videos:
        mean_C = (files["vlad"].scores(video_id) + files["gru"].scores(video_id)) / 2
        np.testing.assert_allclose(files["both"].scores(video_id), mean_C, rtol=1e-5)
        found = files["gru"].videos[video_id].relevance
        assert not found.additive and len(found.leave_one_out) == 2
        assert np.abs(next(iter(found.leave_one_out.values()))).max() > 0


def test_tags_choose_the_classes_of_the_localizer(trained, tmp_path, capsys):
    config = trained / "my.yaml"
    if not (trained / "run" / "checkpoints").is_dir():
        assert main(["train", str(config)]) == 0
    videos = [f"validation_{n:02d}" for n in range(18, 27)]
    tags = tmp_path / "tags.json"
    say = {"Jump": 0.1, "Throw": 0.2, "Wave": 0.9}
    write_tags(tags, Tags(CLASSES, {video_id: VideoTags(say) for video_id in videos}))
    predict = ["predict", trained / "run", "inference.class_rule=top", "--out", tmp_path / "found.json"]
    assert call(capsys, *predict, f"inference.class_tags={tags}")[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert {d["label"] for detections in found.values() for d in detections} == {"Wave"}
    refused = {
        "no tags of video 'validation_26'": Tags(CLASSES, {v: VideoTags(say) for v in videos[:-1]}),
        "class 'Sing' is one of the tags alone": Tags((*CLASSES, "Sing"), {v: VideoTags(say) for v in videos}),
        "class 'Jump' is one of this run alone": Tags(CLASSES[1:], {v: VideoTags({"Wave": 1.0}) for v in videos}),
    }
    for message, wrong in refused.items():
        write_tags(tags, wrong)
        code, _, said = call(capsys, *predict, f"inference.class_tags={tags}")
        assert code == 2 and message in said and said.count("\n") == 1
    code, _, said = call(capsys, *predict, f"inference.class_tags={tags}", "inference.video_classifier=x")
    assert code == 2 and "set one of them" in said


def test_what_cannot_be_tagged_is_refused_in_one_line(trained, tmp_path, capsys):
    shutil.copytree(trained / "vlad", tmp_path / "other")
    wrong = {
        "ends in .json or .csv": [trained / "vlad", "--out", tmp_path / "tags.txt"],
        "needs a .json file": [trained / "vlad", "--out", tmp_path / "tags.csv", "--explain"],
        "no such file": [tmp_path, "--out", tmp_path / "tags.csv"],
        "no such feature store": [trained / "vlad", "--features", tmp_path / "none", "--out", tmp_path / "tags.csv"],
        "0 or more": [trained / "vlad", "--top", "-1", "--out", tmp_path / "tags.csv"],
    }
    for message, words in wrong.items():
        code, _, said = call(capsys, "tag", *words)
        assert code == 2 and message in said and said.count("\n") == 1
    (tmp_path / "t.csv").write_text("video,label,score\na,Jump,0.5\na,Jump,0.6\n")
    code, _, said = call(capsys, "evaluate", tmp_path / "t.csv", trained / "annotations.json", "--videos")
    assert code == 2 and "line 3: label 'Jump' of video 'a' is there twice" in said
    (tmp_path / "t.csv").write_text("video,label,score\na,Jump,nan\n")
    assert (
        "a score is 'nan'" in call(capsys, "evaluate", tmp_path / "t.csv", trained / "annotations.json", "--videos")[2]
    )


@pytest.mark.parametrize(
    "labels, code, message",
    [
        ("Sing", 2, "none of the tags' classes ('Sing') is a label of the ground truth ("),
        ("Jump Sing", 0, "no video of the ground truth has the label 'Sing', which tags name: always wrong"),
        ("Jump", 0, "of the ground truth is none of the tags' classes; it is missed"),
    ],
)
def test_labels_that_only_one_side_knows_are_named(trained, tmp_path, capsys, labels, code, message):
    rows = "".join(f"validation_20,{label},0.5\n" for label in labels.split())
    (tmp_path / "t.csv").write_text(f"video,label,score\n{rows}")
    got, _, said = call(capsys, "evaluate", tmp_path / "t.csv", trained / "annotations.json", "--videos")
    assert got == code and message in said


def test_a_run_of_the_classifier_goes_on_after_a_kill_with_stream_dropout(trained, tmp_path, monkeypatch, capsys):
    import torch

    import wtal.training.video_classifier as module

    def train(out, stop_at=None):
        write, calls = module.save_checkpoint, []

        def save(path, state):
            calls.append(path)
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            write(path, state)

        with monkeypatch.context() as patch:
            patch.setattr(module, "save_checkpoint", save)
            sets = ("epochs=4", "checkpoint_epochs=1", "stream_dropout=0.5", "model.clusters=2", "model.hidden=4")
            words = ["train-video-classifier", str(trained / "my.yaml"), "data.streams=[rgb,flow]"]
            words += ["--out", str(tmp_path / out)]
            return main([*words, *(word for setting in (*sets, "batch=6") for word in ("--set", setting))])

    assert (train("whole"), train("cut", stop_at=3), train("cut")) == (0, 130, 0)
    last = Path("checkpoints") / "last.pt"
    one, two = (torch.load(tmp_path / out / last, weights_only=True)["model"] for out in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()
    code, _, said = call(capsys, "train-video-classifier", trained / "my.yaml", "data.streams=[rgb]", "--out",
                         tmp_path / "one", "--set", "stream_dropout=0.5")  # fmt: skip
    assert code == 2 and "needs several streams" in said


def test_the_report_shows_tags_and_strips(trained, capsys):
    run = trained / "vlad"
    code, _, said = call(capsys, "report", run)
    assert code == 2 and f"wtal tag {run} --explain" in said and said.count("\n") == 1
    assert call(capsys, "tag", run, "--explain", "--out", run / "tags.json")[0] == 0
    code, shown, _ = call(capsys, "report", run)
    index = run / "report" / "index.html"
    assert code == 0 and shown.strip() == str(index)
    text = index.read_text(encoding="utf-8")
    assert "GAP@20" in text and text.count("<tr>") > 9 and "AP by class" in text and 'class="chart"' in text
    page = (run / "report" / "videos" / "validation_20.html").read_text(encoding="utf-8")
    # three classes explained: left out and additive; the true one has its segments above
    assert page.count("<figcaption>left out") == 3 and page.count("<figcaption>additive") == 3
    assert page.count("<figcaption>ground truth") == 1 and page.count("<rect") > 6
    assert call(capsys, "report", run)[0] == 0

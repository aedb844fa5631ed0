"""Scores of a run: made again when what made them changes, never mixed between feature stores; damaged files named."""

import shutil

import pytest
import torch
import yaml

from feature_extraction.errors import UserError
from wtal.commands.main import main
from wtal.inference.scores import VideoScores
from wtal.runs.localizer import open_run
from wtal.runs.predict import predict_run, predict_videos
from wtal.training.folder import RunFolder
from wtal.training.run import train

SMALL = {"schedule": {"warmup_steps": 3, "rounds": 1, "b_steps": 2, "f_steps": 2}}


@pytest.fixture
def other_store(tmp_path_factory, generate):
    """Features of the same ids and streams, with other content."""
    folder = tmp_path_factory.mktemp("other")
    generate(folder, seed=7)
    return folder / "features"


def content(run: RunFolder) -> dict[str, bytes]:
    """All files of a run that prediction writes."""
    files = [*run.path.glob("scores/**/*"), run.predictions, run.summary]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def test_another_store_is_read_and_leaves_the_run_alone(make_config, world, other_store):
    run, _ = train(make_config(**SMALL))
    predict_run(run, world / "other_first.json", "ours", (), other_store)
    assert not content(run)
    predict_run(run, world / "own.json", "ours", (), None)
    before = content(run)
    predict_run(run, world / "other.json", "ours", (), other_store)
    assert content(run) == before
    own, first, other = ((world / f"{name}.json").read_text() for name in ("own", "other_first", "other"))
    assert other == first != own

    # the truth: the other store under the run's own path
    copy = RunFolder(shutil.copytree(run.path, world / "copy"))
    shutil.rmtree(copy.path / "scores")
    shutil.move(world / "features", world / "kept")
    shutil.copytree(other_store, world / "features")
    predict_run(copy, world / "truth.json", "ours", (), None)
    assert (world / "truth.json").read_text() == other


def test_another_store_with_fusion_scores_both_rows(make_config, world, other_store):
    run, _ = train(make_config(**SMALL))
    fused = ["inference.fusion=weighted", "inference.fusion_weight=0.01"]
    predict_run(run, world / "fused.json", "ours", fused, other_store)
    predict_run(run, world / "ours.json", "ours", (), other_store)
    assert (world / "fused.json").read_text() != (world / "ours.json").read_text()


def test_the_same_store_under_another_name_is_the_runs_own(make_config, world):
    run, _ = train(make_config(**SMALL))
    predict_run(run, world / "p.json", "ours", (), world / "features" / ".." / "features")
    assert run.summary.is_file() and run.predictions.is_file()


def test_scores_of_other_weights_are_made_again(make_config, world):
    run, _ = train(make_config(**SMALL))
    predict_run(run, world / "first.json", "ours", (), None)
    before = content(run)
    predict_run(run, world / "again.json", "ours", (), None)
    assert content(run) == before

    path = run.checkpoints / "F1.pt"
    state = torch.load(path, weights_only=True)
    shutil.copy(path, world / "kept.pt")
    state["cbp"] = {key: value + 0.5 if value.is_floating_point() else value for key, value in state["cbp"].items()}
    torch.save(state, path)
    predict_run(run, world / "other.json", "ours", (), None)
    after = content(run)
    scores = [key for key in after if "/scores/" in key]
    changed = {key.split("/scores/")[1].split("/")[0] for key in scores if after[key] != before[key]}
    assert changed == {"ours", "ours.json"}, "rows of other checkpoints stay"

    shutil.copy(world / "kept.pt", path)
    predict_run(run, world / "back.json", "ours", (), None)
    assert content(run) == before


def test_scores_that_do_not_say_what_made_them_are_made_again(make_config, world):
    run, _ = train(make_config(**SMALL))
    predict_run(run, world / "first.json", "ours", (), None)
    before = content(run)
    (run.path / "scores" / "ours.json").write_text("{")
    (run.path / "scores" / "vlp.json").unlink()
    for path in run.path.glob("scores/*/*_12.npz"):
        shutil.copy(run.scores("cbp_warmup", "validation_13"), path)
    shutil.copy(run.scores("cbp_warmup", "validation_13"), run.scores("ours", "validation_12"))
    predict_run(run, world / "again.json", "ours", (), None)
    after = content(run)
    for row in ("ours", "vlp"):
        path = str(run.scores(row, "validation_12"))
        assert after[path] == before[path]


@pytest.mark.parametrize("damage", ["foreign", "wide", "list", "lacking", "empty", "text"])
def test_a_checkpoint_that_is_none_of_this_run_is_named(damage, make_config, world, capsys):
    run, _ = train(make_config(**SMALL))
    path = run.checkpoints / "F1.pt"
    state = torch.load(path, weights_only=True)
    if damage == "wide":
        state["cbp"] = {key: torch.cat([value, value]) if value.dim() else value for key, value in state["cbp"].items()}
    states = {"foreign": {"cbp": {"x": torch.ones(2)}}, "wide": state, "list": [1, 2], "lacking": {"vlp": state["vlp"]}}
    if damage in states:
        torch.save(states[damage], path)
    else:
        path.write_bytes(b"" if damage == "empty" else b"no checkpoint")
    assert main(["predict", str(run.path), "--out", str(world / "p.json")]) == 2
    shown = capsys.readouterr().err
    assert "F1.pt: not " in shown and "Traceback" not in shown and len(shown.strip().splitlines()) == 1


def test_fusion_of_a_run_with_one_branch_is_refused_before_extraction(make_config, world, monkeypatch):
    monkeypatch.setattr("feature_extraction.pipeline.run.extract", lambda *a, **k: pytest.fail("extracted"))
    sections = {**SMALL, "data": {"streams": ["rgb", "flow"]}}
    sections["schedule"] = {**SMALL["schedule"], "strategy": "warmup_only"}
    run, _ = train(make_config(**sections))
    fused = ["inference.fusion=average"]
    with pytest.raises(UserError, match="this run has the CBP branch alone"):
        predict_videos(open_run(run, fused), [world / "v.mp4"], world / "p.json", "ours", None)
    with pytest.raises(UserError, match="this run has the CBP branch alone"):
        predict_run(run, world / "p.json", "ours", fused, None)


def test_what_cannot_be_extracted_is_refused_before_extraction(make_config, world, monkeypatch):
    monkeypatch.setattr("feature_extraction.pipeline.run.extract", lambda *a, **k: pytest.fail("extracted"))
    run, _ = train(make_config(**SMALL))
    path = run.path / "config.yaml"
    text = path.read_text()

    def refused(message: str, *overrides: str) -> None:
        with pytest.raises(UserError, match=message):
            predict_videos(open_run(run, overrides), [world / "v.mp4"], world / "p.json", "ours", None)

    config = yaml.safe_load(text)
    config["extraction"]["streams"] = ["rgb"]
    path.write_text(yaml.safe_dump(config))
    refused("stream 'flow' cannot be extracted from new videos: extraction.streams makes rgb")
    path.write_text(text)
    refused("config.yaml: no such file", f"inference.video_classifier={world / 'features'}")
    (run.checkpoints / "F1.pt").unlink()
    refused("F1.pt: no such checkpoint")


def test_long_videos_are_thinned_and_their_rows_last_longer(make_config, world):
    run, _ = train(make_config(**SMALL))
    predict_run(run, world / "whole.json", "ours", (), None)
    before = content(run)
    video_id = sorted(path.stem for path in (run.path / "scores" / "ours").glob("*.npz"))[0]
    whole = VideoScores.load(run.scores("ours", video_id))
    thin = dict(open_run(run, ["inference.longest=5"]).stored("ours", [video_id]))[video_id]
    assert len(whole.frame_TC) > len(thin.frame_TC) == 5
    assert thin.grid.to_seconds(5) == pytest.approx(whole.grid.to_seconds(len(whole.frame_TC)))
    predict_run(run, world / "thin.json", "ours", ["inference.longest=5"], None)
    assert content(run) == before
    assert (world / "thin.json").read_bytes() != (world / "whole.json").read_bytes()

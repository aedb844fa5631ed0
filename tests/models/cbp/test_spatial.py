"""The branch over a grid: what a place is, pooling over space and time, the bottom-up map, training to a report.

Legend: B videos, T snippets, P places, D width of a place, C classes.
"""

import json

import numpy as np
import pytest
import torch

import wtal
from feature_extraction.errors import UserError
from feature_extraction.store.grid import TimeGrid
from feature_extraction.store.stream import create_stream
from wtal.commands.main import main
from wtal.config.models import CBPSettings, PoolingSettings
from wtal.config.strict import dump
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, write_activitynet
from wtal.datasets.features import FeatureSet, open_features
from wtal.inference.score_file import ScoreFile
from wtal.inference.scores import VideoScores
from wtal.models.build import build_cbp
from wtal.training.run import train
from wtal.training.statistics import stream_statistics

P, D = 4, 3
ATTENTIONAL = {"name": "attentional", "space": "prob"}


def branch_of(pooling, **options):
    torch.manual_seed(0)
    settings = CBPSettings(
        name="spatial", streams=("rgb", "flow"), width=5, heads=1, pooling=PoolingSettings(**pooling), **options
    )
    return build_cbp(settings, {"rgb": P * D, "flow": P * 2}, 3, "clip", places={"rgb": P, "flow": P}).eval()


def test_places_of_all_streams_are_pooled_over_space_and_time_at_once():
    branch = branch_of({**ATTENTIONAL, "rank": 1}).double()
    rgb, flow = torch.randn(2, 6, P, D).double(), torch.randn(2, 6, P, 2).double()
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]).bool()
    output = branch({"rgb": rgb.flatten(2), "flow": flow.flatten(2)}, mask)
    network, head = branch.branch, branch.branch.pooling.operator
    for b, length in enumerate([6, 4]):
        evidence = []
        for t in range(length):
            for p in range(P):
                hidden = network.project(torch.cat([rgb[b, t, p], flow[b, t, p]])).relu()
                up = head.bottom_up(hidden)
                torch.testing.assert_close(output.extra["map_BTP"][b, t, p], up.abs()[0])
                evidence.append(head.top_down(hidden) * up)
        video = torch.stack(evidence).mean(0).sigmoid()
        torch.testing.assert_close(branch.video_probability(output, mask)[b], video)
        torch.testing.assert_close(output.logit_BTC[b, 0], torch.stack(evidence[:P]).mean(0))


@pytest.mark.parametrize(
    "pooling", [{"name": "max"}, {"name": "attention"}, {"name": "power"}, {**ATTENTIONAL, "rank": 0}]
)
def test_where_a_place_is_does_not_matter_to_the_video(pooling):
    branch = branch_of(pooling)
    rgb, flow = torch.randn(1, 5, P, D), torch.randn(1, 5, P, 2)
    mask, order = torch.ones(1, 5).bool(), torch.randperm(5 * P)

    def video(rgb, flow):
        output = branch({"rgb": rgb.flatten(2), "flow": flow.flatten(2)}, mask)
        assert "map_BTP" not in output.extra
        return branch.video_probability(output, mask)

    moved = (x.flatten(1, 2)[:, order].view_as(x) for x in (rgb, flow))
    torch.testing.assert_close(video(rgb, flow), video(*moved))


def test_bag_and_instance_loss_counts_places():
    branch = branch_of({"name": "mean"}, instance_weight=0.5)
    feature = {"rgb": torch.randn(2, 3, P * D), "flow": torch.randn(2, 3, P * 2)}
    mask, label = torch.ones(2, 3).bool(), torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    loss, _ = branch.own_loss(output := branch(feature, mask), label, mask, 0.0)
    q = output.extra["place_BTPC"].sigmoid().flatten(1, 2)
    bag = -q[0, :, 0].mean().log()
    sure = -torch.maximum(q, 1 - q)[0, :, 0].log().mean()
    negative = -(1 - q).log().mean(1)
    total = bag + 0.5 * (bag - sure) ** 2 + negative.sum() - negative[0, 0]
    torch.testing.assert_close(loss, total / 6)


def test_a_branch_over_a_grid_needs_one():
    with pytest.raises(UserError, match="needs features with a grid"):
        build_cbp(CBPSettings(name="spatial"), {"rgb": 8, "flow": 8}, 3, "clip")
    with pytest.raises(UserError, match="the same in all of cbp.streams"):
        build_cbp(CBPSettings(name="spatial"), {"rgb": 8, "flow": 8}, 3, "clip", places={"rgb": 4, "flow": 1})


@pytest.fixture
def grid_world(world):
    """Videos in which the class is at one place that wanders, something else at another; the others hold noise."""
    rng = np.random.default_rng(0)
    identity = {"fps": 25.0, "window": 16, "stride": 16, "dim": 6, "spatial": 3}
    stream = create_stream(world / "grid", "rgb", identity)
    videos = {}
    for number in range(24):
        subset, label = "training" if number < 16 else "validation", number % 3
        key = f"{subset}_{number:02d}"
        feature_TPD = 0.3 * rng.standard_normal((20, 9, 6))
        for t in range(20):
            feature_TPD[t, (number + t // 4) % 9, [label, 3]] += 2
            feature_TPD[t, (number + t // 4 + 5) % 9, 4] += 2
        stream.write(key, feature_TPD, {"duration": 12.8, "source": f"{key}.mp4"})
        videos[key] = VideoAnnotation(key, subset, ("ABC"[label],), (), 12.8)
    write_activitynet(world / "grid.json", AnnotationSet(("A", "B", "C"), videos))
    return world


def test_statistics_of_a_grid_are_one_for_all_places(grid_world):
    features = FeatureSet(grid_world / "grid", ["rgb"])
    assert features.dims == {"rgb": 54} and features.cells == {"rgb": 9}
    mean_D, deviation_D = stream_statistics(features, features.ids(), ["rgb"])["rgb"]
    every = np.concatenate([features.read(key)["rgb"].astype(float).reshape(-1, 6) for key in features.ids()])
    np.testing.assert_allclose(mean_D.numpy(), np.tile(every.mean(0), 9), atol=1e-5)
    np.testing.assert_allclose(deviation_D.numpy(), np.tile(every.std(0), 9), atol=1e-5)


def test_training_finds_the_place_and_the_report_can_show_it(grid_world, make_config, capsys):
    config = make_config(
        data={"annotations": str(grid_world / "grid.json"), "features": str(grid_world / "grid"), "streams": ["rgb"]},
        cbp={"name": "spatial", "streams": ["rgb"], "pooling": {**ATTENTIONAL, "bottom_up_bias": 0.0}},
        schedule={"strategy": "warmup_only", "warmup_steps": 120}, optimizer={"lr": 1e-2},
    )  # fmt: skip
    (grid_world / "spatial.yaml").write_text(dump(config))
    run = grid_world / "run"
    assert main(["train", str(grid_world / "spatial.yaml")]) == 0
    assert main(["predict", str(run), "--out", str(run / "predictions.json")]) == 0
    localizer = wtal.load(run)
    right, share = [], []
    for key, scores in localizer.stored("ours", [f"validation_{n}" for n in range(16, 24)]):
        number = int(key[-2:])
        right.append(scores.video_C.argmax() == number % 3)
        own = (number + np.arange(20) // 4) % 9
        share.append(scores.map_TP[np.arange(20), own].sum() / scores.map_TP.sum())
    assert np.mean(right) > 0.9 and np.mean(share) > 0.4  # a ninth of the places
    assert main(["report", str(run)]) == 0
    text = (run / "report" / "data" / "validation_16.js").read_text()
    row = json.loads(text[text.index("(") + 1 : text.rindex(")")])["rows"][0]
    assert len(row["map"]) > 20 * 9 * 4


def test_maps_are_kept_with_the_scores(tmp_path):
    own = VideoScores(np.zeros((2, 1)), np.zeros(1), TimeGrid(25.0, 16, 16), 1.0, map_TP=np.arange(8.0).reshape(2, 4))
    ScoreFile(tmp_path).extend({}, [("v", own)])
    np.testing.assert_array_equal(ScoreFile(tmp_path)["v"].map_TP, own.map_TP)
    with pytest.raises(ValueError, match="map_TP"):
        VideoScores(np.zeros((2, 1)), np.zeros(1), TimeGrid(25.0, 16, 16), 1.0, map_TP=np.zeros((3, 4)))


def test_boxes_teach_the_map_where_to_look(grid_world, make_config):
    rows = ["video,start,end,left,top,right,bottom"]
    for number in range(8):  # half of the training videos have boxes, around what tells no class
        for t in range(20):
            down, across = divmod((number + t // 4 + 5) % 9, 3)
            box = (across / 3, down / 3, (across + 1) / 3, (down + 1) / 3)
            rows.append(",".join(f"{x:.6f}" for x in (0.64 * t, 0.64 * (t + 1), *box)))
            rows[-1] = f"training_{number:02d},{rows[-1]}"
    (grid_world / "boxes.csv").write_text("\n".join(rows))
    share = {}
    for boxes in (None, str(grid_world / "boxes.csv")):
        config = make_config(
            out=str(grid_world / f"run-{boxes is None}"),
            data={"annotations": str(grid_world / "grid.json"), "features": str(grid_world / "grid"),
                  "streams": ["rgb"], "boxes": boxes},
            cbp={"name": "spatial", "streams": ["rgb"], "pooling": ATTENTIONAL},
            schedule={"strategy": "warmup_only", "warmup_steps": 60}, optimizer={"lr": 1e-2},
        )  # fmt: skip
        folder, _ = train(config)
        assert ("boxes" in folder.manifest()["inputs"]) == (boxes is not None)
        assert all(("boxes" in r) == (boxes is not None) for r in folder.records() if r["kind"] == "train")
        own = []
        for key, scores in wtal.load(folder.path).score(
            "ours", open_features(config.data), [f"validation_{n}" for n in range(16, 24)]
        ):
            place_T = (int(key[-2:]) + np.arange(20) // 4 + 5) % 9
            own.append(scores.map_TP[np.arange(20), place_T].sum() / scores.map_TP.sum())
        share[boxes is not None] = np.mean(own)
    assert share[True] > 0.4 > 0.2 > share[False]

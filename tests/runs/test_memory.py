"""Memory that does not grow with the number of videos, but by the few bytes of each that are stated."""

import json

import numpy as np
import pytest
import torch

from wtal.datasets.features import open_features
from wtal.inference.scores import frame_scores, score_videos
from wtal.models.build import build_branches
from wtal.runs.predict import predict_run
from wtal.training import pseudo_labels
from wtal.training.distillation import ternary_labels
from wtal.training.pseudo_labels import class_scale, teach
from wtal.training.run import train
from wtal.training.statistics import measure

from ..fixtures.memory import peak

SMALL = {"schedule": {"warmup_steps": 3, "rounds": 1, "b_steps": 2, "f_steps": 2}}


@pytest.mark.parametrize("adaptive", [False, True])
def test_pseudo_labels_are_a_byte_a_snippet_and_own_class(make_config, monkeypatch, adaptive):
    config = make_config(schedule={"strategy": "warmup_only"}, data={"streams": ["rgb", "flow"]})
    features = open_features(config.data)
    ids, classes = features.ids(), [f"class {c}" for c in range(400)]
    branches = build_branches(config, features, classes, measure(config, features, ids, 32))
    label_NC = np.zeros((len(ids), len(classes)), np.float32)
    label_NC[np.arange(len(ids)), np.arange(len(ids)) % 5] = 1
    label_NC[::2, 300] = 1
    label_NC[3] = 0  # a negative
    settings = make_config(pseudo_labels={"adaptive": adaptive}).pseudo_labels
    kept = []

    def scaled(own_TK, label_NC):
        kept.extend(held(score_TK) for score_TK in own_TK)
        return class_scale(own_TK, label_NC)

    monkeypatch.setattr(pseudo_labels, "class_scale", scaled)
    labels = teach(branches.cbp, features, ids, label_NC, settings, "minmax", torch.device("cpu"))
    sizes = [features.length(video_id) * int(label_C.sum()) for video_id, label_C in zip(ids, label_NC, strict=True)]
    # all that is behind the arrays, so that none is a view of scores of every class
    assert [held(own_TK) for own_TK in labels.own_TK] == sizes
    assert kept == ([4 * size for size in sizes] if adaptive else [])
    for video, video_id in enumerate(ids):
        dense_TC, own = labels.dense(video), np.flatnonzero(label_NC[video])
        assert dense_TC.shape == (features.length(video_id), len(classes)) and dense_TC.dtype == np.int8
        np.testing.assert_array_equal(dense_TC[:, own], labels.own_TK[video])
        assert not np.delete(dense_TC, own, axis=1).any()
    scores = [
        frame_scores(output, mask_BT, "minmax")[0]
        for output, mask_BT in score_videos(branches.cbp, features, ids, torch.device("cpu"))
    ]
    scale_C = torch.ones(len(classes))
    if adaptive:
        for c in np.flatnonzero(label_NC.any(0)).tolist():
            own = torch.cat([score_TC[:, c] for score_TC, label_C in zip(scores, label_NC, strict=True) if label_C[c]])
            scale_C[c] = own.quantile(0.95).clamp(min=0.3, max=1)
    for video, (score_TC, label_C) in enumerate(zip(scores, torch.from_numpy(label_NC), strict=True)):
        mask_BT = torch.ones(1, len(score_TC), dtype=torch.bool)
        whole_BTC = ternary_labels(
            score_TC[None], label_C[None], mask_BT, settings.high * scale_C, settings.low * scale_C
        )
        np.testing.assert_array_equal(labels.dense(video), whole_BTC[0].numpy())


def held(array):
    """Bytes of the memory that an array keeps alive."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes if array.base is None else torch.as_tensor(array).untyped_storage().nbytes()


def test_prediction_holds_numbers_of_detections_and_no_scores(make_config, world, generate):
    """What is held of a video: its detections, its annotation, its entry of the index; never its scores or masks."""
    generate(world, training=6, test=24)
    low = {
        "inference": {"thresholds": [round(0.02 * k, 2) for k in range(1, 50)], "nms": "none", "class_threshold": 0.0}
    }
    run, _ = train(make_config(**SMALL, **low))
    whole = json.loads((world / "annotations.json").read_text())

    def predicted(count):
        kept = {k: v for k, v in whole["database"].items() if v["subset"] == "training" or int(k[-2:]) < 6 + count}
        (world / "annotations.json").write_text(json.dumps({**whole, "database": kept}))
        predict_run(run, run.predictions, "ours", (), None)

    predicted(24)  # what is loaded and compiled at the first call
    few, many = peak(lambda: predicted(12)), peak(lambda: predicted(24))
    results = json.loads(run.predictions.read_text())["results"]
    detections = sum(map(len, results.values())) / len(results)
    assert detections > 50
    assert (many - few) / 12 < 4000 + 450 * detections  # of which most is of the evaluation that goes on

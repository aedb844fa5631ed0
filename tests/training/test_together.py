"""Labels that both branches make together: by hand, and in which phases."""

import cv2
import numpy as np
import pytest
import torch

from feature_extraction.errors import UserError
from wtal.config.training import PseudoLabelSettings
from wtal.training import pseudo_labels, trainer
from wtal.training.run import train

from .test_training import train_killed_at

SMALL = {"schedule": {"warmup_steps": 6, "rounds": 3, "b_steps": 2, "f_steps": 2}}


def test_labels_are_cut_from_the_weighted_geometric_mean(monkeypatch):
    rng = np.random.default_rng(0)
    said = {name: [rng.random((length, 2), dtype=np.float32) for length in (40, 7)] for name in ("cbp", "vlp")}
    monkeypatch.setattr(pseudo_labels, "_own_scores", lambda branch, *rest: iter(said[branch]))
    settings = PseudoLabelSettings(high=0.6, low=0.4, together=0.3)
    label_NC = np.array([[1, 1, 0], [0, 1, 1]], dtype=np.float32)
    made = pseudo_labels.teach_together("cbp", "vlp", None, ["a", "b"], label_NC, settings, torch.device("cpu"))
    for own_TK, cbp, vlp in zip(made.own_TK, said["cbp"], said["vlp"], strict=True):
        score = np.exp(0.7 * np.log(cbp) + 0.3 * np.log(vlp))
        np.testing.assert_array_equal(own_TK, np.where(score > 0.6, 1, np.where(score < 0.4, 0, -1)))
    assert len(np.unique(made.own_TK[0])) == 3


def test_phases_after_the_first_f_share_labels_and_resume(make_config, world, monkeypatch):
    asked = []
    teach = trainer.teach_together

    def counted(cbp, vlp, *rest):
        asked.append((cbp.streams, vlp.streams))
        return teach(cbp, vlp, *rest)

    monkeypatch.setattr(trainer, "teach_together", counted)
    pseudo = {"agreement": "background", "together": 0.2}
    run, _ = train(make_config("whole", pseudo_labels=pseudo, **SMALL))
    # B2, F2, B3, F3; the CBP branch first in each
    assert len(asked) == 4 and len(set(asked)) == 1 and asked[0][0] != asked[0][1]
    other, _ = train(make_config("apart", pseudo_labels=pseudo | {"together": 0.0}, **SMALL))
    same = {name: run.place(name).read_bytes() == other.place(name).read_bytes() for name in ("F1", "B2")}
    assert same == {"F1": True, "B2": False}
    # inside B2 and inside F2
    config = make_config("cut", pseudo_labels=pseudo, training={"checkpoint_steps": 1}, **SMALL)
    again = train_killed_at(monkeypatch, config, {12, 15})
    assert again.place("F3").read_bytes() == run.place("F3").read_bytes()


def test_otsu_cuts_where_the_spread_within_is_least():
    rng = np.random.default_rng(1)
    for length in (2, 3, 10, 60):
        score_TK = np.stack([rng.random(length), np.round(rng.random(length), 1), np.ones(length)], axis=1)
        cut_K = pseudo_labels.otsu(score_TK)
        assert cut_K[2] == 1
        for score_T, cut in zip(score_TK.T[:2], cut_K[:2], strict=True):
            values = np.unique(score_T)
            if len(values) == 1:
                continue
            within = [sum(part.var() * len(part) for part in (score_T[score_T <= v], score_T[score_T > v]))
                      for v in values[:-1]]  # fmt: skip
            best = int(np.argmin(within))
            assert cut == pytest.approx((values[best] + values[best + 1]) / 2)
    assert pseudo_labels.otsu(np.array([[0.3]])).tolist() == [0.3]


def test_otsu_parts_grey_levels_as_opencv_does():
    grey_T = np.random.default_rng(2).normal((60, 150), (10, 30), (400, 2)).clip(0, 255).astype(np.uint8).ravel()
    theirs, _ = cv2.threshold(grey_T[None], 0, 255, cv2.THRESH_OTSU)
    assert np.array_equal(grey_T > theirs, grey_T > pseudo_labels.otsu(grey_T[:, None])[0])


def test_labels_are_cut_by_otsu_and_the_branch_may_learn_its_own(make_config, world):
    pseudo = {"agreement": "own", "first": "otsu"}
    own, _ = train(make_config("own", pseudo_labels=pseudo, **SMALL))
    other, _ = train(make_config("own-lr", pseudo_labels=pseudo, optimizer={"vlp_lr": 0.01}, **SMALL))
    # the VLP learns otherwise, which the CBP branch never hears of
    assert own.place("B3").read_bytes() != other.place("B3").read_bytes()
    weights = [torch.load(run.place("F3"), weights_only=True) for run in (own, other)]
    assert all(torch.equal(weights[0]["cbp"][key], weights[1]["cbp"][key]) for key in weights[0]["cbp"])
    assert any(not torch.equal(weights[0]["vlp"][key], weights[1]["vlp"][key]) for key in weights[0]["vlp"])
    first = next(r for r in own.records() if r["kind"] == "pseudo_labels" and r["phase"] == "F1")
    assert first["uncertain"] == 0 and 0 < first["foreground"] < 1


def test_a_share_outside_0_to_1_is_refused():
    for share in (-0.1, 1.0):
        with pytest.raises(UserError, match="together must be in"):
            PseudoLabelSettings(together=share)

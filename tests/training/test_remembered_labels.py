"""Pseudo-labels that a phase finds remembered are those that it would make."""

import pytest

from wtal.training import trainer
from wtal.training.run import train
from wtal.training.trainer import Trainer

SMALL = {"schedule": {"warmup_steps": 6, "rounds": 3, "b_steps": 2, "f_steps": 2}}


@pytest.mark.parametrize(
    "pseudo,made,asked",
    [
        # B1: both; F1: the VLP; B2: the CBP branch; and so on: no set is made twice
        ({"agreement": "background"}, 7, 16),
        # the teacher is an average, so that what a branch teaches and what it learns from are others
        ({"agreement": "background", "ema": 0.9}, 12, 16),
        ({"agreement": "drop"}, 7, 12),
        ({"agreement": "none"}, 6, 6),
    ],
)
def test_labels_are_made_once_and_equal_to_the_last_bit(make_config, world, monkeypatch, pseudo, made, asked):
    count, teach = [], trainer.teach

    def counted(*words):
        count.append(1)
        return teach(*words)

    monkeypatch.setattr(trainer, "teach", counted)
    first, _ = train(make_config("remembering", pseudo_labels=pseudo, **SMALL))
    assert len(count) == made
    said = Trainer._said

    def forgetful(self, *words, **more):
        self._remembered.clear()
        return said(self, *words, **more)

    monkeypatch.setattr(Trainer, "_said", forgetful)
    count.clear()
    second, _ = train(make_config("forgetting", pseudo_labels=pseudo, **SMALL))
    assert len(count) == asked
    assert first.records() == second.records()
    assert first.place("F3").read_bytes() == second.place("F3").read_bytes()

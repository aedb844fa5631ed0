"""Scores to detections: the whole path against plain loops, and every setting's effect."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from feature_extraction.errors import UserError
from feature_extraction.store.grid import TimeGrid
from wtal.config.inference import PRESETS, InferenceSettings, ProposalPass, expand_assignments, expand_preset, preset
from wtal.inference.detect import choose_classes, detect
from wtal.inference.scores import VideoScores

from . import plain

GRID = TimeGrid(25, 16, 16)
NAMES = ["jump", "run", "throw"]


def make(frame_TC, video_C=None, attention_T=None, duration=None):
    frame_TC = np.asarray(frame_TC, dtype=np.float32)
    video_C = frame_TC.max(axis=0) if video_C is None else np.asarray(video_C, dtype=np.float32)
    duration = len(frame_TC) * 0.64 if duration is None else duration
    attention_T = None if attention_T is None else np.asarray(attention_T, dtype=np.float32)
    return VideoScores(frame_TC, video_C, GRID, duration, attention_T)


@examples(max_examples=60, deadline=None)
@given(st.integers(1, 25), st.integers(0, 2**32 - 1), st.sampled_from(["max", "mean", "oic"]))
def test_whole_path_equals_plain_loops(length, seed, score):
    rng = np.random.default_rng(seed)
    scores = make(rng.random((length, 3)), rng.random(3))
    settings = InferenceSettings(
        class_rule="absolute",
        class_threshold=0.4,
        thresholds=(0.3, 0.6),
        scaling="absolute",
        score=score,
        gamma=0.2,
        nms="gaussian",
        nms_sigma=0.4,
    )
    wanted = []
    for c in range(3):
        if not (scores.video_C[c] > 0.4 or c == scores.video_C.argmax()):
            continue
        signal = scores.frame_TC[:, c].astype(float).tolist()
        spans = sorted({span for threshold in (0.3, 0.6) for span in plain.runs(signal, np.float32(threshold))})
        value = {
            "max": lambda s, e, x=signal: max(x[s:e]),
            "mean": lambda s, e, x=signal: sum(x[s:e]) / (e - s),
            "oic": lambda s, e, x=signal: plain.contrast(x, s, e, 0.25),
        }[score]
        items = [(s * 0.64, e * 0.64, value(s, e) + 0.2 * float(scores.video_C[c])) for s, e in spans]
        wanted += [(NAMES[c], *item) for item in plain.suppress(items, "gaussian", 0.4, 0.5)]
    found = detect(scores, NAMES, settings)
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    assert len(found) == len(wanted)
    got = sorted((d.label, round(d.start, 6), round(d.end, 6), d.score) for d in found)
    for mine, its in zip(got, sorted((n, round(s, 6), round(e, 6), x) for n, s, e, x in wanted), strict=True):
        assert mine[:3] == its[:3]
        assert mine[3] == pytest.approx(its[3], abs=1e-6)


def test_a_lone_first_snippet_is_detected():
    (found,) = detect(make([[0.9], [0.1], [0.1]]), ["jump"], InferenceSettings())
    assert (found.start, found.end, found.label) == (0.0, 0.64, "jump")
    assert found.score == pytest.approx(0.9)


def test_a_video_of_one_snippet_is_detected():
    (found,) = detect(make([[0.9]], duration=0.5), ["jump"], InferenceSettings())
    assert (found.start, found.end) == (0.0, 0.5)  # and cut at the end of the video


def test_proposals_behind_the_end_of_the_video_are_dropped():
    scores = make([[0.9], [0.1], [0.9]], duration=1.28)
    assert [d.start for d in detect(scores, ["jump"], InferenceSettings())] == [0.0]


@pytest.mark.parametrize(
    "settings, wanted",
    [
        (dict(class_rule="absolute", class_threshold=0.3), [0, 1]),
        (dict(class_rule="absolute", class_threshold=0.95), [0]),  # never empty: the best class
        (dict(class_rule="relative", class_threshold=0.85), [0]),
        (dict(class_rule="relative", class_threshold=0.5), [0, 1]),
        (dict(class_rule="top", class_top=2), [0, 1]),
        (dict(class_rule="top", class_top=9), [0, 1, 2]),
    ],
)
def test_class_rules(settings, wanted):
    assert choose_classes(np.array([0.6, 0.4, 0.1]), InferenceSettings(**settings)).tolist() == wanted


def test_signals():
    frame_TC, attention_T = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]], [0.9, 0.1, 0.9]
    scores = make(frame_TC, [0.9, 0.85], attention_T)

    def spans(**changes):
        settings = InferenceSettings(scaling="absolute", thresholds=(0.5,), class_rule="top", class_top=2, **changes)
        return sorted(
            (d.label, round(d.start / 0.64), round(d.end / 0.64)) for d in detect(scores, NAMES[:2], settings)
        )

    assert spans() == [("jump", 0, 2), ("run", 2, 3)]
    assert spans(signal="attention") == [("jump", 0, 1), ("jump", 2, 3), ("run", 0, 1), ("run", 2, 3)]
    assert spans(signal="product") == [("jump", 0, 1), ("run", 2, 3)]
    more = (ProposalPass(signal="attention", thresholds=(0.5,)),)
    assert spans(more=more) == [("jump", 0, 1), ("jump", 0, 2), ("jump", 2, 3), ("run", 0, 1), ("run", 2, 3)]


def test_upsampling_moves_edges_inside_snippets_and_min_length_counts_snippets():
    scores = make([[0.0], [1.0], [0.0], [0.0]])
    (found,) = detect(scores, ["jump"], InferenceSettings(upsample=10, thresholds=(0.5,)))
    # Centres at 0.5, 1.5, 2.5 snippets: above one half between 1.0 and 2.0
    assert (found.start, found.end) == (pytest.approx(0.64), pytest.approx(1.28))
    (found,) = detect(scores, ["jump"], InferenceSettings(upsample=10, thresholds=(0.7,)))
    assert found.end - found.start == pytest.approx(0.64 * 0.6)  # |x - 1.5| < 0.3, at 6 of the centres
    assert not detect(scores, ["jump"], InferenceSettings(upsample=10, thresholds=(0.7,), min_length=0.8))


def test_floor_and_most_detections():
    scores = make([[0.9], [0.0], [0.8], [0.0], [0.7]])
    assert len(detect(scores, ["jump"], InferenceSettings(score_floor=0.75))) == 2
    best = detect(scores, ["jump"], InferenceSettings(max_detections=1, nms="none"))
    assert [round(d.score, 6) for d in best] == [0.9]


def test_fusion():
    one, two = (
        make([[1.0], [0.0]], attention_T=[1.0, 0.0]),
        make([[0.0], [1.0], [1.0]], attention_T=[0.0, 1.0, 1.0]),
    )
    settings = InferenceSettings(fusion="weighted", fusion_weight=0.25, scaling="absolute", thresholds=(0.6,))
    for signal in ("cas", "attention"):
        (found,) = detect(one, ["jump"], InferenceSettings(**{**vars(settings), "signal": signal}), two)
        assert (found.start, found.score) == (pytest.approx(0.64), pytest.approx(0.75))
    both = InferenceSettings(fusion="average", scaling="absolute", thresholds=(0.4,))
    (found,) = detect(one, ["jump"], both, two)
    assert (found.start, found.end) == (0.0, pytest.approx(1.28))
    with pytest.raises(UserError, match="both branches"):
        detect(one, ["jump"], both)
    with pytest.raises(UserError, match="2 and 4 snippets"):
        detect(one, ["jump"], both, make(np.zeros((4, 1))))


def test_bad_scores_are_one_clear_line():
    with pytest.raises(UserError, match="1 values that are not finite"):
        detect(make([[0.5], [np.nan]], [0.5]), ["jump"], InferenceSettings())
    with pytest.raises(UserError, match="video scores"):
        detect(make([[0.5]], [np.inf]), ["jump"], InferenceSettings())
    with pytest.raises(UserError, match="needs a branch with attention"):
        detect(make([[0.5]]), ["jump"], InferenceSettings(signal="attention"))
    with pytest.raises(UserError, match="1 classes, the annotations 2"):
        detect(make([[0.5]]), NAMES[:2], InferenceSettings())


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(thresholds=()), "thresholds is empty"),
        (dict(thresholds=(1.0,)), "got 1.0"),
        (dict(class_threshold=1.5), "class_threshold"),
        (dict(nms_sigma=0.0), "nms_sigma"),
        (dict(upsample=0), "upsample must be at least 1"),
        (dict(gamma=float("nan")), "gamma"),
        (dict(min_length=-1.0), "min_length"),
    ],
)
def test_bad_settings_are_named(change, said):
    with pytest.raises(UserError, match=said):
        InferenceSettings(**change)


def test_presets():
    assert preset("paper") == InferenceSettings()
    um = preset("um")
    assert (um.upsample, um.nms, len(um.thresholds), len(um.passes[1].thresholds)) == (24, "hard", 10, 9)
    co2 = preset("co2net")
    assert (co2.thresholds[0], co2.thresholds[-1], co2.signal) == (0.1, 0.9, "attention")
    rng = np.random.default_rng(0)
    scores = make(rng.random((30, 3)), [0.7, 0.25, 0.05], rng.random(30))
    with pytest.raises(UserError, match="signal 'raw' needs a branch with attention"):
        detect(scores, NAMES, preset("um"))
    scores = replace(scores, raw_TC=4 * scores.frame_TC * scores.attention_T[:, None])
    for name in PRESETS:
        found = detect(scores, NAMES, preset(name))
        assert found and {d.label for d in found} == ({"jump"} if name == "paper" else {"jump", "run"})
    with pytest.raises(UserError, match="'um2' is not one of paper, co2net, um, delu"):
        preset("um2")


def test_presets_in_configurations():
    values = expand_preset({"seed": 1, "inference": {"preset": "um", "nms_tiou": 0.5}})
    assert values["seed"] == 1 and values["inference"]["nms_tiou"] == 0.5 and values["inference"]["upsample"] == 24
    assert expand_preset({"seed": 1}) == {"seed": 1}
    assignments = expand_assignments(["a=1", "inference.preset=co2net", "inference.gamma=0"])
    assert assignments[0] == "a=1" and assignments[-1] == "inference.gamma=0"
    assert 'inference.signal="attention"' in assignments


def test_repeated_segments_suppress_what_they_overlap_again():
    # thresholds 0.2 and 0.5 both find snippets 0 and 1: the second copy is lowered by exp(-1 / sigma), and stays
    scores = make([[0.8], [0.6], [0.0], [0.3]], [1.0])
    once = InferenceSettings(thresholds=(0.2, 0.5), scaling="absolute", nms_sigma=0.5)
    assert [(d.start, d.end) for d in detect(scores, ["jump"], once)] == [(0.0, 1.28), (1.92, 2.56)]
    twice = detect(scores, ["jump"], replace(once, repeats=True))
    assert [d.score for d in twice] == pytest.approx([0.8, 0.3, 0.8 * np.exp(-2)])
    # with a snippet added to all lengths the lone one (its gap is one snippet) is still free, and touching ones overlap
    added = detect(scores, ["jump"], replace(once, repeats=True, nms_added="snippet"))
    assert [d.score for d in added] == pytest.approx([0.8, 0.3, 0.8 * np.exp(-2)])


def test_short_detections_dropped_after_suppression_have_lowered_others():
    scores = make([[0.5], [0.9], [0.5], [0.0]], [1.0])
    settings = InferenceSettings(thresholds=(0.4, 0.8), scaling="absolute", score="mean", min_length=2.0)
    before, after = (detect(scores, ["jump"], replace(settings, min_length_at=at)) for at in ("before", "after"))
    assert [(d.start, d.end) for d in before] == [(d.start, d.end) for d in after] == [(0.0, 3 * 0.64)]
    mean = (0.5 + 0.9 + 0.5) / 3
    assert before[0].score == pytest.approx(mean)
    assert after[0].score == pytest.approx(mean * np.exp(-((1 / 3) ** 2) / 0.3))


def test_contrast_of_a_signal_that_is_zero_below_the_threshold():
    scores = make([[0.3], [0.3], [0.9], [0.9], [0.3], [0.3]], [1.0])
    settings = InferenceSettings(
        thresholds=(0.5,), scaling="absolute", score="oic", oic_lambda=0.5, repeats=True, nms="none"
    )
    assert detect(scores, ["jump"], settings)[0].score == pytest.approx(0.6)
    assert detect(scores, ["jump"], replace(settings, zero_below=True))[0].score == pytest.approx(0.9)
    with pytest.raises(UserError, match="set inference.repeats=true"):
        replace(settings, zero_below=True, repeats=False)

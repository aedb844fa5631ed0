"""The split of own videos: groups whole, negatives spread, names alike pointed out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtal.datasets.annotations import AnnotationSet, VideoAnnotation
from wtal.datasets.splits import hold_out
from wtal.runs.own_videos.split import near_duplicates, stem_of_recording


def annotations(labels):
    videos = {
        f"v{i}": VideoAnnotation(f"v{i}", "", (label,) if label else (), negative=not label)
        for i, label in enumerate(labels)
    }
    return AnnotationSet(tuple(sorted(set(labels) - {""})), videos)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.integers(0, 6)), min_size=1, max_size=40), st.integers(0, 3)
)
def test_groups_stay_whole_and_no_class_loses_its_last_video(drawn, seed):
    labels = [label for label, _ in drawn]
    groups = {f"v{i}": f"g{group}" for i, (_, group) in enumerate(drawn) if group}
    known = annotations(labels)
    held = hold_out(known, 0.3, seed, groups)
    for group in set(groups.values()):
        members = {key for key, name in groups.items() if name == group}
        assert not members & held or members <= held
    left = {label for key, video in known.videos.items() if key not in held for label in video.labels or ("",)}
    assert left == set(labels)
    assert held == hold_out(known, 0.3, seed, dict(reversed(groups.items())))


def test_groups_of_one_size_give_about_the_share():
    known = annotations(["a", "b"] * 20)
    groups = {f"v{i}": f"g{i // 4}" for i in range(40)}
    held = hold_out(known, 0.2, 0, groups)
    assert len(held) == 8 and sum(known.videos[key].labels == ("a",) for key in held) == 4


def test_negatives_are_spread_like_a_class():
    known = annotations(["a"] * 20 + [""] * 20)
    held = hold_out(known, 0.2, 0)
    assert len(held) == 8 and sum(known.videos[key].negative for key in held) == 4


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("lobby (2)", "lobby", True),
        ("lobby_part1", "lobby_part2", True),
        ("lobby-720p", "lobby-copy", True),
        ("a/cam2_0007", "b/cam2_0008", True),
        ("v_Shot_g01_c01", "v_Shot_g01_c02", True),
        ("v_Shot_g01_c01", "v_Shot_g02_c01", False),
        ("video_0007", "video_0008", False),
        ("fight", "fighting", False),
        ("bob", "bod", False),
        ("mon/a", "tue/a", False),
    ],
)
def test_names_alike(one, other, alike):
    notes = near_duplicates({one: "training", other: "validation", "something else": "training"}, {})
    assert bool(notes) == alike
    if alike:
        assert one in notes[0] and other in notes[0] and "'group'" in notes[0]
        assert stem_of_recording(one) == stem_of_recording(other)
        assert near_duplicates({one: "training", other: "training", "x": "validation"}, {}) == []
        same = {one: "g", other: "g"}
        assert near_duplicates({one: "training", other: "validation", "x": "training"}, same) == []

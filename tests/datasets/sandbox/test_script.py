"""The timeline: what the annotation promises, checked against the segments that are drawn."""

from dataclasses import replace

import numpy as np
import pytest

from feature_extraction.errors import UserError
from wtal.config.sandbox import SandboxSettings
from wtal.datasets.sandbox.script import BROKEN_OFF_SECONDS, plan_video, plan_world
from wtal.datasets.sandbox.world import ACTIONS, CYCLES, FIXTURES, PASTIMES, POSE, PROPS, STRIKES, VENUES

SETTINGS = SandboxSettings()
WORLD = plan_world(SETTINGS)


def test_the_world_has_the_size_and_variety_that_its_settings_promise():
    training = [script for script in WORLD if script.subset == "training"]
    test = [script for script in WORLD if script.subset == "test"]
    assert (len(training), len(test)) == (SETTINGS.training_videos, SETTINGS.test_videos)
    assert len({script.video_id for script in WORLD}) == len(WORLD)
    for subset in (training, test):
        shown = [label for script in subset for label in script.annotation().labels]
        assert set(shown) == set(ACTIONS)
        several = np.mean([len(script.annotation().labels) > 1 for script in subset])
        assert 0.2 < several < 0.6
    counts = [len(script.instances) for script in WORLD]
    assert min(counts) == 2 and max(counts) == SETTINGS.max_instances


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("max_seconds", [25.0, 30.0])
def test_videos_keep_to_their_length_and_instances_do_not_touch(seed, max_seconds):
    settings = SandboxSettings(seed=seed, max_seconds=max_seconds)
    for index in range(40):
        script = plan_video(settings, "training", index)
        duration = script.frames / script.fps
        assert settings.min_seconds <= duration <= settings.max_seconds
        assert 2 <= len(script.instances) <= settings.max_instances
        for before, after in zip(script.instances, script.instances[1:], strict=False):
            assert before.end + 0.5 < after.start
        assert 0 < script.instances[0].start and script.instances[-1].end < duration
        assert {ACTIONS[instance.label].venue for instance in script.instances} == {script.venue}
        assert all(0.0 <= place <= 1.0 for s in script.segments for place in (s.x0, s.x1))
        ends = [0.0, *(segment.end for segment in script.segments)]
        assert all(s.start == end < s.end for s, end in zip(script.segments, ends, strict=False))


def test_ground_truth_spans_run_up_strike_and_follow_through_and_nothing_else():
    seen_outside = set()
    for script in WORLD:
        inside = set()
        for instance in script.instances:
            action = ACTIONS[instance.label]
            own = [s for s in script.segments if instance.start <= s.start and s.end <= instance.end]
            assert [segment.motion for segment in own] == [action.run_up, action.strike, action.follow]
            assert (own[0].start, own[-1].end) == (instance.start, instance.end)
            strike = own[1].end - own[1].start
            assert strike < 0.4 * (instance.end - instance.start)
            inside.update(own)
        outside = {segment.motion for segment in script.segments if segment not in inside}
        # Outside of the ground truth there is no strike; run-ups and follow-throughs are pastimes as well.
        assert outside <= set(PASTIMES)
        seen_outside |= outside
    assert {"ready", "settle"} <= seen_outside


def test_every_action_has_its_object_in_view_before_and_after():
    context = SETTINGS.context_seconds
    for script in WORLD:
        for instance in script.instances:
            action = ACTIONS[instance.label]
            own = [s for s in script.stagings if s.prop == action.prop and s.fixture == action.fixture]
            around = [s for s in own if s.start <= instance.start and instance.end <= s.end]
            assert len(around) == 1
            assert around[0].start == max(0.0, instance.start - context)
            assert around[0].end == instance.end + context


def test_hard_negatives_show_an_object_without_an_action():
    settings = replace(SETTINGS, hard_negatives=1.0)
    broken_off = 0
    for index in range(24):
        script = plan_video(settings, "test", index)
        decoys = [s for s in script.stagings if not any(i.start < s.end and s.start < i.end for i in script.instances)]
        assert len(decoys) == 1
        run_ups = [g for g in script.segments if decoys[0].start <= g.start < decoys[0].end and g.motion == "ready"]
        broken_off += any(abs(g.end - g.start - BROKEN_OFF_SECONDS) < 1e-9 for g in run_ups)
    assert 4 <= broken_off <= 20
    assert all(
        len(script.stagings) == len(script.instances) for script in plan_world(replace(SETTINGS, hard_negatives=0.0))
    )


def test_a_video_depends_on_seed_subset_and_index_alone():
    assert plan_video(SETTINGS, "test", 3) == plan_video(replace(SETTINGS, test_videos=4), "test", 3)
    others = [
        plan_video(replace(SETTINGS, seed=1), "test", 3), plan_video(SETTINGS, "training", 3),
        plan_video(SETTINGS, "test", 3 + len(ACTIONS)),
    ]  # fmt: skip
    assert all(other.segments != plan_video(SETTINGS, "test", 3).segments for other in others)


def test_the_tables_hold_together():
    for action in ACTIONS.values():
        assert action.venue in VENUES and action.prop in PROPS and action.fixture in FIXTURES
        assert action.run_up in CYCLES and action.strike in STRIKES and action.follow in CYCLES
    for cycle in CYCLES.values():
        assert set(cycle.joints) <= set(POSE)
    for strike in STRIKES.values():
        fractions = [at for at, _ in strike.keys]
        assert fractions[0] == 0.0 and fractions[-1] == 1.0 and fractions == sorted(set(fractions))
        assert all(set(joints) <= set(POSE) for _, joints in strike.keys)
    # Hardness by construction: shared venues, shared run-ups, one shared strike, distinct objects.
    assert len({a.venue for a in ACTIONS.values()}) < len(ACTIONS) / 2
    assert {(a.run_up, a.follow) for a in ACTIONS.values()} == {("ready", "settle")}
    assert {"ready", "settle"} < set(PASTIMES) and not set(PASTIMES) & set(STRIKES)
    assert len({a.strike for a in ACTIONS.values()}) < len(ACTIONS)
    assert len({(a.prop, a.fixture) for a in ACTIONS.values()}) == len(ACTIONS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("training_videos", 0), ("test_videos", -1), ("max_seconds", 12.0), ("min_seconds", 29.0),
        ("min_seconds", 0.0),
        ("max_instances", 1), ("multi_label", 1.5), ("noise", -1.0), ("noise", float("nan")), ("size", 63),
        ("size", 16), ("fps", 0.0), ("crf", 60), ("context_seconds", 9.0),
    ],
)  # fmt: skip
def test_settings_refuse_what_cannot_be_drawn(field, value):
    with pytest.raises(UserError, match=f"{field}.*{value}|{field}"):
        SandboxSettings(**{field: value})

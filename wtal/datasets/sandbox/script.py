"""What happens in a video, before a single frame is drawn: a random timeline that depends on the seed alone.

plain | context | run-up strike follow-through | context | plain ...
        <------ prop and fixture in view ------------->
                 <------- ground truth ------>
"""

from dataclasses import dataclass, replace
from itertools import count as count_from

import numpy as np

from wtal.config.sandbox import SandboxSettings
from wtal.datasets.annotations import Instance, VideoAnnotation
from wtal.datasets.sandbox.world import ACTIONS, CYCLES, PASTIMES, STRIKES, Action

SUBSETS = ("training", "test")
RUN_UP_SECONDS = (1.5, 2.5)
FOLLOW_SECONDS = (1.1, 1.9)
"""At a pace of 1; a video of many actions is quicker."""
PLAIN_SECONDS = (2.6, 4.8)
REPEAT_SECONDS = (1.0, 1.6)
"""Pause between two instances of one class that follow one another, the prop left in view."""
REPEAT_SHARE = 0.4
DECOY_SECONDS = (1.2, 2.4)
BROKEN_OFF_SECONDS = 0.8
PASTIME_SHARES = (0.22, 0.14, 0.1, 0.1, 0.08, 0.16, 0.04, 0.16)
"""Probabilities of `world.PASTIMES` where the figure has nowhere to go."""
BODY = 0.6
"""Height of the figure as a share of the picture at zoom 1."""


@dataclass(frozen=True)
class Segment:
    """One motion from `start` to `end` (seconds), `x0` to `x1` (shares of the width), facing +1 or -1."""

    start: float
    end: float
    motion: str
    x0: float
    x1: float
    facing: int
    phase: float
    vigour: float
    tempo: float


@dataclass(frozen=True)
class Staging:
    """Prop and fixture in view from `start` to `end` (seconds), and what the strike does with the prop."""

    start: float
    end: float
    prop: str
    fixture: str
    x: float
    """Where the strike happens, share of the picture's width."""
    facing: int
    carry: str
    """Where the prop is until its release: `right`, `both` or `ground`."""
    release: float | None
    """Second at which the prop leaves, or None."""
    velocity: tuple[float, float]


@dataclass(frozen=True)
class VideoScript:
    """One video: its timeline, and the seed of its looks."""

    video_id: str
    subset: str
    venue: str
    frames: int
    fps: float
    zoom: float
    segments: tuple[Segment, ...]
    stagings: tuple[Staging, ...]
    instances: tuple[Instance, ...]
    look: tuple[int, ...]
    """Seed sequence of colours, texture, shake and noise."""

    def annotation(self) -> VideoAnnotation:
        """Ground truth, in seconds; labels in order of first appearance."""
        labels = tuple(dict.fromkeys(instance.label for instance in self.instances))
        return VideoAnnotation(self.video_id, self.subset, labels, self.instances, self.frames / self.fps)


class Timeline:
    """Appends segments one after another; the figure stays in the picture."""

    def __init__(self, rng: np.random.Generator, zoom: float) -> None:
        self.rng, self.zoom = rng, zoom
        self.now = 0.0
        self.x = float(rng.uniform(0.2, 0.8))
        self.facing = 1
        self.segments: list[Segment] = []

    def add(self, motion: str, seconds: float, x: float) -> None:
        """`seconds` of `motion` that end at `x`."""
        rng = self.rng
        if abs(x - self.x) > 0.02:
            self.facing = 1 if x > self.x else -1
        x = float(np.clip(x, 0.08, 0.92))
        end = self.now + seconds
        phase, vigour, tempo = (
            float(rng.uniform(0, 1)),
            float(rng.uniform(0.85, 1.15)),
            float(rng.uniform(0.88, 1.12)),
        )
        self.segments.append(Segment(self.now, end, motion, self.x, x, self.facing, phase, vigour, tempo))
        self.now, self.x = end, x

    def pass_time(self, seconds: float, x: float) -> None:
        """`seconds` without an action, ending at `x`: walks if there is a way to go, pastimes if not."""
        end = self.now + seconds
        way = abs(x - self.x)
        if way > 0.05:
            self.add("walk", min(seconds, max(0.7, way / 0.2)), x)
        while end - self.now > 0.3:
            left = end - self.now
            part = left if left < 1.6 else float(self.rng.uniform(0.7, left - 0.7))
            self.add(str(self.rng.choice(PASTIMES, p=PASTIME_SHARES)), part, self.x)
        if end > self.now:
            self.add("idle", end - self.now, self.x)


def perform(line: Timeline, name: str, action: Action, facing: int, pace: float) -> tuple[Staging, Instance]:
    """Append run-up, strike and follow-through of `action`; the staging's span is that of the instance.

    `pace` divides the length of run-up and follow-through.
    """
    rng = line.rng
    line.facing = facing
    start, reach = line.now, facing * BODY * line.zoom
    seconds = float(rng.uniform(*RUN_UP_SECONDS)) / pace
    line.add(action.run_up, seconds, line.x + reach * CYCLES[action.run_up].travel * seconds)
    strike = STRIKES[action.strike]
    seconds, strike_at, x = float(rng.uniform(*strike.seconds)), line.now, line.x
    line.add(action.strike, seconds, x + reach * strike.travel)
    release = None if strike.release is None else strike_at + strike.release * seconds
    seconds = float(rng.uniform(*FOLLOW_SECONDS)) / pace
    line.add(action.follow, seconds, line.x + reach * CYCLES[action.follow].travel * seconds)
    staging = Staging(start, line.now, action.prop, action.fixture, x, facing, strike.carry, release, strike.velocity)
    return staging, Instance(start, line.now, name)


def starting_place(action: Action, facing: int) -> float:
    """Where the figure stands before `action`, share of the picture's width: runs start at the edge."""
    return 0.5 - facing * (0.28 if action.run_up == "run" else 0.1)


def plan_video(settings: SandboxSettings, subset: str, index: int) -> VideoScript:
    """The script of video `index` of `subset`; other videos have no influence on it."""
    look = (settings.seed, SUBSETS.index(subset), index)
    rng = np.random.default_rng(look)
    names = list(ACTIONS)
    main = names[index % len(names)]
    neighbours = [name for name in names if name != main and ACTIONS[name].venue == ACTIONS[main].venue]
    labels = [main]
    if rng.random() < settings.multi_label:
        labels.append(str(rng.choice(neighbours)))
    count = int(rng.integers(2, settings.max_instances + 1))
    order = labels + [str(rng.choice(labels)) for _ in range(count - len(labels))]
    together = rng.random() < 0.5
    order = sorted(order, key=labels.index) if together else [str(name) for name in rng.permutation(order)]
    for attempt in count_from(1):
        zoom = float(rng.uniform(0.88, 1.12))
        line, stagings, instances = _lay_out(order, settings, zoom, rng)
        if line.now <= settings.max_seconds:
            break
        if attempt % 6 == 0:
            order = _shorter(order)
    if line.now < settings.min_seconds:
        line.pass_time(settings.min_seconds - line.now + 0.4, line.x)
    frames = min(int(np.ceil(line.now * settings.fps)), int(settings.max_seconds * settings.fps))
    return VideoScript(
        f"{subset}_{index:03d}", subset, ACTIONS[main].venue, frames, settings.fps, zoom,
        tuple(line.segments), tuple(stagings), tuple(instances), look,
    )  # fmt: skip


def plan_world(settings: SandboxSettings) -> list[VideoScript]:
    """The scripts of all videos, training first."""
    counts = (settings.training_videos, settings.test_videos)
    return [
        plan_video(settings, subset, index)
        for subset, count in zip(SUBSETS, counts, strict=True)
        for index in range(count)
    ]


def _shorter(order: list[str]) -> list[str]:
    """`order` without one instance, a repeated label first; two stay."""
    if len(order) <= 2:
        return order
    spare = next((i for i, name in enumerate(order) if order.count(name) > 1), len(order) - 1)
    return order[:spare] + order[spare + 1 :]


def _lay_out(
    order: list[str], settings: SandboxSettings, zoom: float, rng: np.random.Generator
) -> tuple[Timeline, list[Staging], list[Instance]]:
    line = Timeline(rng, zoom)
    stagings: list[Staging] = []
    instances: list[Instance] = []
    context = settings.context_seconds
    pace = max(1.0, len(order) / 3)
    decoy_at = int(rng.integers(0, len(order))) if rng.random() < settings.hard_negatives else -1
    for position, name in enumerate(order):
        action, facing = ACTIONS[name], int(rng.choice((-1, 1)))
        repeats = position > 0 and order[position - 1] == name and rng.random() < REPEAT_SHARE
        if position == decoy_at:
            # Far enough from the last action that its prop is out of view again.
            line.pass_time(context + float(rng.uniform(*PLAIN_SECONDS)), starting_place(action, facing))
            stagings.append(_decoy(line, action, facing, rng))
            repeats = False
        if repeats:
            gap = float(rng.uniform(*REPEAT_SECONDS))
        else:
            gap = float(rng.uniform(*PLAIN_SECONDS)) + context * (2 if position and position != decoy_at else 1)
        line.pass_time(gap, starting_place(action, facing))
        staging, instance = perform(line, name, action, facing, pace)
        stagings.append(replace(staging, start=max(0.0, staging.start - context), end=staging.end + context))
        instances.append(instance)
    line.pass_time(context + float(rng.uniform(*PLAIN_SECONDS)), line.x)
    return line, stagings, instances


def _decoy(line: Timeline, action: Action, facing: int, rng: np.random.Generator) -> Staging:
    """A hard negative: the object in view without the action, half the time with a run-up broken off."""
    start, x, carry = line.now, line.x, "ground"
    line.pass_time(float(rng.uniform(*DECOY_SECONDS)), line.x)
    if rng.random() < 0.5:
        carry, line.facing = STRIKES[action.strike].carry, facing
        travel = facing * BODY * line.zoom * CYCLES[action.run_up].travel
        line.add(action.run_up, BROKEN_OFF_SECONDS, line.x + travel * BROKEN_OFF_SECONDS)
        line.pass_time(0.8, line.x)
    return Staging(start, line.now, action.prop, action.fixture, x, facing, carry, None, (0.0, 0.0))

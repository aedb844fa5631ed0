"""The process behind a simulated world: its numbers, drawn from stated ranges, and one video's latent vectors.

Everything is evidence for concepts (classes, motions that classes share, venues that classes share) along a video,
`[T, K]`; a stream sees the concepts through unit vectors of its own, `[K, L]`, with noise on top.

- I3D-like streams: a class shows itself in its core, a contiguous share of each instance, and faintly in the rest and
  around it; the motion that its family of classes shares shows itself all through the instance and its run-up.
  Distractor bursts outside of actions show a random class or a shared motion. Venue and video have looks of their own.
- CLIP-like stream: classes of the video show themselves all through it (the scene names them), as far as the present
  shot shows the scene, more strongly in the action, and in its context. Some videos look like another class of their
  venue; some shots look like another class altogether.

Legend: T snippets, K concepts, L latent numbers, C classes.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.signal import lfilter

from feature_extraction.store.grid import TimeGrid
from wtal.datasets.annotations import VideoAnnotation

LATENT = 128
I3D = ("rgb", "flow")
SNIPPET = TimeGrid().snippet_seconds


@dataclass(frozen=True, kw_only=True)
class Process:
    """The numbers of one world. Evidence of 1 is a unit vector of latent numbers; noise is of single latent numbers."""

    venues: int
    """Venues; each class has one, each venue several classes."""
    motions: int
    """Shared motions; each class has one."""
    second_label: float
    """Share of the videos in which a run of instances turns into another class of the venue."""
    core: float
    """I3D: mean share of an instance that is discriminative."""
    hidden: float
    """I3D: share of the instances without a core."""
    rest: float
    """I3D: class evidence in the rest of the instance; 1 in the core."""
    around: float
    """I3D: class evidence in the context, which is as long as CLIP's."""
    shared: float
    """I3D: evidence of the shared motion, in the instance and its run-up."""
    run_up: float
    """Seconds of run-up before an instance."""
    bursts: float
    """I3D: distractor bursts a minute of video."""
    burst: float
    """I3D: evidence of a burst."""
    kin: float
    """I3D: share of a class's direction that its shared motion gives it."""
    i3d_venue: float
    """I3D-RGB: evidence of the venue; a third of it in the flow."""
    i3d_video: float
    """I3D: what holds all through a video."""
    i3d_slow: float
    """I3D: drift (5 s memory)."""
    i3d_fast: float
    """I3D: noise of single snippets."""
    moment: float
    """CLIP: class evidence in the action, on top of what the scene shows."""
    scene: float
    """CLIP: class evidence all through a video."""
    context: float
    """CLIP: class evidence in the context, as a share of that in the action."""
    reach: float
    """Seconds of context before and after an instance."""
    shot: float
    """CLIP: mean length of a shot in seconds; how much of the scene is seen changes with it."""
    mistaken: float
    """CLIP: share of the videos whose scene looks like another class of the venue."""
    strange: float
    """CLIP: share of the shots that look like a class at random."""
    alike: float
    """CLIP: share of a class's direction that its venue gives it, in texts and in pictures."""
    clip_video: float
    """CLIP: what holds all through a video."""
    clip_slow: float
    """CLIP: drift (5 s memory)."""
    clip_fast: float
    """CLIP: noise of single snippets."""


RANGES: dict[str, tuple[float, float]] = {
    "venues": (4, 10),
    "motions": (2, 3),
    "second_label": (0.0, 0.12),
    "core": (0.15, 0.25),
    "hidden": (0.25, 0.45),
    "rest": (0.05, 0.15),
    "around": (0.0, 0.1),
    "shared": (0.6, 1.0),
    "run_up": (0.0, 1.0),
    "bursts": (1.0, 3.0),
    "burst": (0.5, 0.9),
    "kin": (0.0, 0.2),
    "i3d_venue": (0.2, 0.6),
    "i3d_video": (0.045, 0.055),
    "i3d_slow": (0.06, 0.09),
    "i3d_fast": (0.12, 0.15),
    "moment": (0.4, 0.6),
    "scene": (0.05, 0.2),
    "context": (0.7, 0.9),
    "reach": (2.0, 4.0),
    "shot": (4.0, 15.0),
    "mistaken": (0.0, 0.06),
    "strange": (0.0, 0.1),
    "alike": (0.2, 0.5),
    "clip_video": (0.045, 0.07),
    "clip_slow": (0.045, 0.07),
    "clip_fast": (0.045, 0.07),
}
"""Uniform ranges (whole numbers where the field is one). They were set by frozen CLIP's and a warmed-up CBP branch's
figures alone, on worlds 0 to 5; docs/ablations.md says which."""


def draw(seed: int) -> Process:
    """The process of world `seed`."""
    rng = np.random.default_rng([seed, 10])
    values = {}
    for field in fields(Process):
        low, high = RANGES[field.name]
        values[field.name] = int(rng.integers(low, high + 1)) if field.type is int else float(rng.uniform(low, high))
    return Process(**values)


@dataclass(frozen=True)
class World:
    """What all videos of a world share. Concepts: classes, then motions, then venues."""

    process: Process
    classes: tuple[str, ...]
    venue_C: np.ndarray
    """Venue of each class."""
    motion_C: np.ndarray
    """Shared motion of each class."""
    direction: dict[str, np.ndarray]
    """`[K, L]` of rgb, flow and clip."""

    @property
    def motion_at(self) -> int:
        """First concept that is a motion."""
        return len(self.classes)

    @property
    def venue_at(self) -> int:
        """First concept that is a venue."""
        return len(self.classes) + self.process.motions

    def siblings(self, label: int) -> np.ndarray:
        """The other classes of a class's venue; all others where it has none."""
        others = np.flatnonzero(self.venue_C == self.venue_C[label])
        others = others[others != label]
        return others if len(others) else np.delete(np.arange(len(self.classes)), label)


def make_world(seed: int, process: Process, classes: tuple[str, ...]) -> World:
    """Venues, motions and directions of world `seed`."""
    rng = np.random.default_rng([seed, 0])
    count = len(classes)
    venue_C = rng.permutation(np.arange(count) % process.venues)
    motion_C = rng.permutation(np.arange(count) % process.motions)
    direction = {}
    for name in (*I3D, "clip"):
        vector_KL = rng.normal(size=(count + process.motions + process.venues, LATENT))
        direction[name] = vector_KL / np.linalg.norm(vector_KL, axis=1, keepdims=True)
    for name in direction:
        share, common_C = (
            (process.alike, count + process.motions + venue_C) if name == "clip" else (process.kin, count + motion_C)
        )
        own_CL, common_CL = direction[name][:count], direction[name][common_C]
        direction[name][:count] = np.sqrt(1 - share) * own_CL + np.sqrt(share) * common_CL
    return World(process, classes, venue_C, motion_C, direction)


def relabelled(world: World, video: VideoAnnotation, rng: np.random.Generator) -> VideoAnnotation:
    """The video, or with the share `second_label` one in which a run of instances is of another class of its venue."""
    labels = tuple(dict.fromkeys(instance.label for instance in video.instances))
    if len(labels) != 1 or len(video.instances) < 2 or rng.random() >= world.process.second_label:
        return video
    other = world.classes[int(rng.choice(world.siblings(world.classes.index(labels[0]))))]
    first = int(rng.integers(1, len(video.instances)))
    order = sorted(video.instances, key=lambda instance: instance.start)
    instances = (*order[:first], *(type(i)(i.start, i.end, other) for i in order[first:]))
    return VideoAnnotation(video.video_id, video.subset, (labels[0], other), instances, video.duration, video.ambiguous)


def video_latents(world: World, video: VideoAnnotation, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Latents `[T, L]` of rgb, flow and clip."""
    p = world.process
    labels = [world.classes.index(label) for label in video.labels]
    venue = world.venue_at + int(world.venue_C[labels[0]]) if labels else world.venue_at
    i3d_TK = np.zeros((length, len(world.direction["clip"])))
    clip_TK, near_TK = np.zeros_like(i3d_TK), np.zeros_like(i3d_TK)

    _scene(world, clip_TK, labels, venue, rng)
    for instance in video.instances:
        label = world.classes.index(instance.label)
        first = min(length - 1, max(0, int(instance.start / SNIPPET)))
        last = min(length, max(first + 1, int(np.ceil(instance.end / SNIPPET))))
        _action(world, i3d_TK, label, first, last, rng)
        before, after = (max(0, round(p.reach * rng.uniform(0.5, 1.5) / SNIPPET)) for _ in range(2))
        near = slice(max(0, first - before), last + after)
        moment = p.moment * rng.uniform(0.6, 1.4)
        for evidence_TK, inside, outside in ((i3d_TK, 0.0, p.around), (near_TK, moment, p.context * moment)):
            evidence_TK[near, label] = np.maximum(evidence_TK[near, label], outside)
            evidence_TK[first:last, label] = np.maximum(evidence_TK[first:last, label], inside)
    clip_TK += near_TK
    for _ in range(rng.poisson(p.bursts * length * SNIPPET / 60)):
        begin, span = int(rng.integers(length)), int(rng.integers(2, 7))
        concept = int(rng.integers(world.motion_at)) if rng.random() < 0.5 else (
            world.motion_at + int(rng.integers(p.motions))
        )  # fmt: skip
        part_T = i3d_TK[begin : begin + span, concept]
        i3d_TK[begin : begin + span, concept] = np.maximum(part_T, p.burst)

    latents = {}
    for name in (*I3D, "clip"):
        evidence_TK = (clip_TK if name == "clip" else i3d_TK).copy()
        still, slow, fast = (
            (p.clip_video, p.clip_slow, p.clip_fast) if name == "clip" else (p.i3d_video, p.i3d_slow, p.i3d_fast)
        )
        if name != "clip":
            evidence_TK[:, venue] += p.i3d_venue * (1 if name == "rgb" else 1 / 3)
        latents[name] = evidence_TK @ world.direction[name] + still * rng.normal(size=LATENT)
        latents[name] += slow * slow_noise(rng, length, 5 / SNIPPET) + fast * rng.standard_normal(
            (length, LATENT), np.float32
        )
    return latents


def _scene(world: World, clip_TK: np.ndarray, labels: list[int], venue: int, rng: np.random.Generator) -> None:
    """CLIP's evidence all through a video, shot by shot."""
    p = world.process
    shown = [
        int(rng.choice(world.siblings(label))) if rng.random() < p.mistaken else label for label in labels
    ]  # fmt: skip
    begin = 0
    while begin < len(clip_TK):
        end = begin + max(1, round(rng.exponential(p.shot) / SNIPPET))
        seen = rng.uniform(0.3, 1.0)
        clip_TK[begin:end, venue] += 0.5 * seen
        if rng.random() < p.strange:
            clip_TK[begin:end, int(rng.integers(len(world.classes)))] += p.scene * seen
        for label in shown:
            clip_TK[begin:end, label] += p.scene * seen
        begin = end


def _action(world: World, i3d_TK: np.ndarray, label: int, first: int, last: int, rng: np.random.Generator) -> None:
    """I3D's evidence of one instance, snippets `first` to `last`."""
    p = world.process
    span = last - first
    core = max(1, round(span * p.core * rng.uniform(0.6, 1.4)))
    begin = first + int(rng.integers(0, max(1, span - core + 1)))
    i3d_TK[first:last, label] = np.maximum(i3d_TK[first:last, label], p.rest)
    strength, hidden = rng.uniform(0.7, 1.3), rng.random() < p.hidden
    if not hidden:
        i3d_TK[begin : min(last, begin + core), label] = strength
    motion = world.motion_at + int(world.motion_C[label])
    start = max(0, first - round(p.run_up / SNIPPET))
    i3d_TK[start:last, motion] = np.maximum(i3d_TK[start:last, motion], p.shared)


def slow_noise(rng: np.random.Generator, length: int, memory: float) -> np.ndarray:
    """AR(1) noise `[T, L]` of unit variance with a memory of `memory` snippets."""
    keep = np.exp(-1 / memory)
    white_TL = rng.standard_normal((length, LATENT), np.float32)
    white_TL[1:] *= np.sqrt(1 - keep**2)
    return lfilter(np.float32([1]), np.float32([1, -keep]), white_TL, axis=0)

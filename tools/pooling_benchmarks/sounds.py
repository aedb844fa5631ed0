"""Power pooling: weakly labelled sound event detection on synthetic frames, over generated or real label
layouts.

A clip is 100 frames of 0.1 s. An event adds its class's direction to its frames; half of the 3-frame chunks
of each event are weakly expressed, which is where pooling functions differ: those that push weak frames down
find fragments. Legend: N clips, T frames, D feature width, C classes.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pooling_benchmarks.training import rank_correlation, train, unit_rows
from wtal.datasets.annotations import Instance
from wtal.datasets.formats.dcase import read_dcase
from wtal.evaluation.sound_events import clip_f1, event_f1, segment_f1
from wtal.inference.sound_events import events_from_scores
from wtal.models.losses import binary_bag_loss
from wtal.models.pooling.head import make_pooling

FRAMES, FRAME_SECONDS, WIDTH, CLASSES, NOISE = 100, 0.1, 32, 10, 0.2
LAMBDAS = (3e-3, 1e-2, 3e-2)
FIXED = (0.15, 0.3, 0.45, 0.6)

VARIANTS: dict[str, dict] = {
    "max": {"name": "max"},
    "mean": {"name": "mean"},
    "linear_softmax": {"name": "linear_softmax"},
    "attention": {"name": "attention"},
    "auto": {"name": "auto"},
    "generalized_mean": {"name": "generalized_mean"},
    "power, lambda 0": {"name": "power", "regulariser": 0.0},
    **{f"power, lambda {value:g}": {"name": "power", "regulariser": value} for value in LAMBDAS},
    **{
        f"power, fixed n {n:g}": {
            "name": "power",
            "exponent_mode": "fixed",
            "exponent_init": n,
            "regulariser": 0.0,
        }
        for n in FIXED
    },
}
CHOICES = {
    "power, learnt n, lambda chosen on dev": [f"power, lambda {value:g}" for value in LAMBDAS],
    "power, one fixed n chosen on dev": [f"power, fixed n {n:g}" for n in FIXED],
}
DEV, TEST = "dev_event_f1", "event_f1"

Layout = list[list[tuple[float, float, int]]]


class Sounds(NamedTuple):
    """Features, weak labels, strong labels of a split, and each class's mean event duration in seconds."""

    feature_NTD: Tensor
    label_NC: Tensor
    reference: dict[str, list[Instance]]


def generated_layout(generator: np.random.Generator, clips: int) -> Layout:
    """1 to 3 events a clip; class durations spread geometrically from 0.4 to 8 seconds, jittered by a
    fifth."""
    durations = np.geomspace(0.4, 8.0, CLASSES)
    layout: Layout = []
    for _ in range(clips):
        events = []
        for c in generator.choice(CLASSES, generator.integers(1, 4), replace=False):
            length = round(float(np.clip(durations[c] * generator.uniform(0.8, 1.2), 0.3, 9.5)), 1)
            start = round(float(generator.uniform(0, FRAMES * FRAME_SECONDS - length)), 1)
            events.append((start, start + length, int(c)))
        layout.append(events)
    return layout


@cache
def real_layout(path: Path) -> Layout:
    """Events of a DCASE strong label file."""
    annotations = read_dcase(path, "any")
    index = {name: c for c, name in enumerate(annotations.classes)}
    return [[(e.start, e.end, index[e.label]) for e in clip.instances] for clip in annotations.videos.values()]


def mean_durations(layout: Layout) -> np.ndarray:
    """Mean event duration of each class in seconds."""
    seconds: list[list[float]] = [[] for _ in range(CLASSES)]
    for events in layout:
        for start, end, c in events:
            seconds[c].append(end - start)
    return np.array([np.mean(values) for values in seconds])


def render(generator: np.random.Generator, layout: Layout, direction_CD: np.ndarray) -> Sounds:
    """Features over a layout."""
    feature = NOISE * generator.standard_normal((len(layout), FRAMES, WIDTH)).astype(np.float32)
    label = np.zeros((len(layout), CLASSES), np.float32)
    reference: dict[str, list[Instance]] = {}
    for n, events in enumerate(layout):
        reference[str(n)] = [Instance(start, end, str(c)) for start, end, c in events]
        for start, end, c in events:
            first = min(int(round(start / FRAME_SECONDS)), FRAMES - 1)
            last = max(first + 1, min(int(round(end / FRAME_SECONDS)), FRAMES))
            chunks = -(-(last - first) // 3)
            weak = generator.permutation(chunks) < chunks // 2
            strength = np.where(weak, generator.uniform(0.35, 0.7, chunks), generator.uniform(1.2, 1.8, chunks))
            feature[n, first:last] += np.repeat(strength, 3)[: last - first, None] * direction_CD[c]
            label[n, c] = 1
    return Sounds(torch.from_numpy(feature), torch.from_numpy(label), reference)


class Detector(nn.Module):
    """Conv over 5 frames, ReLU, frame classifier, pooling head."""

    def __init__(self, options: dict) -> None:
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, 32, 5, padding=2)
        self.classifier = nn.Linear(32, CLASSES)
        self.pooling = make_pooling(options["name"], CLASSES, 32, **{k: v for k, v in options.items() if k != "name"})

    def forward(self, feature_NTD: Tensor):
        hidden_NTD = self.conv(feature_NTD.transpose(1, 2)).relu().transpose(1, 2)
        mask_NT = torch.ones(hidden_NTD.shape[:2], dtype=torch.bool)
        return self.pooling(self.classifier(hidden_NTD), mask_NT, hidden_NTD)


@torch.no_grad()
def measure(model: Detector, sounds: Sounds) -> dict[str, float]:
    """Macro F1 of events, segments and clips; threshold 0.5, median filter over 5 frames."""
    pooled = model(sounds.feature_NTD)
    frame_NTC = pooled.frame_logit_BTC.sigmoid().numpy()
    names = [str(c) for c in range(CLASSES)]
    found = {
        str(n): events_from_scores(frame_NTC[n], names, FRAME_SECONDS, median_seconds=0.5)
        for n in range(len(frame_NTC))
    }
    here = pooled.log_p_BC.exp() >= 0.5
    tags = {str(n): [names[c] for c in np.flatnonzero(row)] for n, row in enumerate(here.numpy())}
    truth = {clip: {event.label for event in events} for clip, events in sounds.reference.items()}
    return {
        "event_f1": event_f1(sounds.reference, found).macro,
        "segment_f1": segment_f1(sounds.reference, found).macro,
        "clip_f1": clip_f1(truth, tags).macro,
    }


def run(variant: str, seed: int, layouts: Path | None = None, epochs: int = 15) -> dict[str, float]:
    """Train one head on one draw of the data. With `layouts`, a folder with validation.tsv (train and
    development) and public.tsv (test), the events' classes and times are real."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    direction_CD = unit_rows(generator, CLASSES, WIDTH)
    if layouts is None:
        parts = [generated_layout(generator, clips) for clips in (1000, 300, 400)]
    else:
        clips = real_layout(layouts / "validation.tsv")
        order = generator.permutation(len(clips))
        cut = int(0.75 * len(clips))
        parts = [
            [clips[i] for i in order[:cut]],
            [clips[i] for i in order[cut:]],
            real_layout(layouts / "public.tsv"),
        ]
    training, dev, test = (render(generator, part, direction_CD) for part in parts)
    model = Detector(VARIANTS[variant])

    def loss(index: Tensor) -> Tensor:
        return (
            binary_bag_loss(model(training.feature_NTD[index]), training.label_NC[index]) + model.pooling.regulariser()
        )

    train(model, loss, len(training.label_NC), epochs=epochs, batch=50, lr=5e-3)
    result = measure(model, test) | {DEV: measure(model, dev)["event_f1"]}
    for values_C in model.pooling.exponents().values():
        if VARIANTS[variant].get("exponent_mode") != "fixed":
            result["rho(exponent, duration)"] = rank_correlation(values_C.numpy(), mean_durations(parts[0]))
            result["mean exponent"] = float(values_C.mean())
    return result

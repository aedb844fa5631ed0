"""Attentional pooling: which object is next to the actor?

A clip shows four objects, four frames each, and four frames of each actor alone. In the frames of one object
an actor is there too. Sums over frames hold which objects and actors there are, not which belong together.
Legend: N videos, T snippets, D feature width, C classes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from pooling_benchmarks.training import train, unit_rows
from wtal.models.pooling.head import make_pooling

WIDTH, OBJECTS, SHOWN, REPEATS, NOISE = 32, 8, 4, 4, 0.1

VARIANTS: dict[str, tuple[int, dict | str]] = {
    # name: (actors, pooling options, or "mean" / "max" of a linear classifier's logits, or a frame network's
    # mean)
    "one actor: average": (1, "mean"),
    "one actor: max": (1, "max"),
    "one actor: frame network + average": (1, "network"),
    "one actor: rank 1": (1, {"rank": 1}),
    "two actors: average": (2, "mean"),
    "two actors: max": (2, "max"),
    "two actors: rank 1": (2, {"rank": 1}),
    "two actors: rank 2": (2, {"rank": 2}),
    "two actors: rank 4": (2, {"rank": 4}),
    "two actors: rank 1, bottom-up per class": (2, {"rank": 1, "per_class_bottom_up": True}),
}
CHOICES: dict[str, list[str]] = {}
DEV, TEST = "", "accuracy"


def draw(generator: np.random.Generator, videos: int, actors: int, object_OD: np.ndarray, actor_AD: np.ndarray):
    """Features `[N, T, D]` and the object next to each actor, `[N, actors]`. Actors choose independently, so
    two may stand next to the same object, in frames of their own."""
    steps = SHOWN * REPEATS * actors + actors * REPEATS
    feature = NOISE * generator.standard_normal((videos, steps, WIDTH)).astype(np.float32)
    target = np.zeros((videos, actors), np.int64)
    for n in range(videos):
        shown = generator.choice(OBJECTS, SHOWN, replace=False)
        rows = []
        for a in range(actors):
            target[n, a] = generator.choice(shown)
            for o in shown:
                rows += [object_OD[o] + (actor_AD[a] if o == target[n, a] else 0)] * REPEATS
            rows += [actor_AD[a]] * REPEATS
        feature[n] += np.stack(rows)[generator.permutation(steps)]
    return torch.from_numpy(feature), torch.from_numpy(target)


class Linear(nn.Module):
    """A classifier of frames whose logits are averaged, or maximised, over time."""

    def __init__(self, classes: int, kind: str) -> None:
        super().__init__()
        wide = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, classes))
        self.frames = wide if kind == "network" else nn.Linear(WIDTH, classes)
        self.kind = kind

    def forward(self, feature_NTD: Tensor) -> Tensor:
        frame_NTC = self.frames(feature_NTD)
        return frame_NTC.amax(dim=1) if self.kind == "max" else frame_NTC.mean(dim=1)


class SecondOrder(nn.Module):
    """Attentional pooling of the features themselves."""

    def __init__(self, classes: int, options: dict) -> None:
        super().__init__()
        self.pooling = make_pooling("attentional", classes, WIDTH, **options)

    def forward(self, feature_NTD: Tensor) -> Tensor:
        return self.pooling(None, torch.ones(feature_NTD.shape[:2], dtype=torch.bool), feature_NTD).logit_BC


def run(variant: str, seed: int, epochs: int = 80) -> dict[str, float]:
    """Train one model on one draw of the data; accuracy over videos and actors."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    actors, options = VARIANTS[variant]
    object_OD, actor_AD = unit_rows(generator, OBJECTS, WIDTH), unit_rows(generator, actors, WIDTH)
    feature, target = draw(generator, 800, actors, object_OD, actor_AD)
    test_feature, test_target = draw(generator, 600, actors, object_OD, actor_AD)
    classes = OBJECTS * actors
    model = Linear(classes, options) if isinstance(options, str) else SecondOrder(classes, options)

    def loss(index: Tensor) -> Tensor:
        logit = model(feature[index]).view(-1, actors, OBJECTS).flatten(0, 1)
        return nn.functional.cross_entropy(logit, target[index].flatten())

    train(model, loss, 800, epochs=epochs, batch=50, lr=1e-2)
    with torch.no_grad():
        best = model(test_feature).view(-1, actors, OBJECTS).argmax(dim=2)
    accuracy = float((best == test_target).float().mean())
    return {TEST: accuracy, "parameters": float(sum(p.numel() for p in model.parameters()))}

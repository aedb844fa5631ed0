"""Adaptive (generalised-mean) pooling and the bag+instance loss: video annotation with classes of unlike duty
cycle.

A class present in a video holds for a share of its frames that goes, class by class, from 0.1 to 1.
Legend: N videos, T snippets, D feature width, C classes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from pooling_benchmarks.training import rank_correlation, train, unit_rows
from wtal.evaluation.classification import score_map
from wtal.models.losses import bag_instance_loss, binary_bag_loss
from wtal.models.pooling.head import make_pooling

FRAMES, WIDTH, CLASSES, NOISE = 30, 24, 12, 0.35
POOLS = {"AveP": {"name": "mean"}, "MaxP": {"name": "max"}, "LearnP": {"name": "generalized_mean"}}
INSTANCE_WEIGHTS = (0.1, 0.6)

VARIANTS: dict[str, tuple[dict, float | None]] = {
    **{f"{pool}, bag loss": (options, None) for pool, options in POOLS.items()},
    **{
        f"{pool}, bag+instance, lambda {weight:g}": (options, weight)
        for pool, options in POOLS.items()
        for weight in INSTANCE_WEIGHTS
    },
    "LearnP, bag loss, Adam on r": (
        {"name": "generalized_mean", "exponent_optimizer": "adam", "exponent_lr": 0.02},
        None,
    ),
}
CHOICES = {
    f"{pool}, bag+instance, lambda chosen on dev": [f"{pool}, bag+instance, lambda {w:g}" for w in INSTANCE_WEIGHTS]
    for pool in POOLS
}
DEV, TEST = "dev_map", "map"


def draw(generator: np.random.Generator, videos: int, direction_CD: np.ndarray) -> tuple[Tensor, Tensor]:
    """Features `[N, T, D]` and labels `[N, C]`; 1 to 3 classes a video, each in one stretch of frames."""
    duty_C = np.linspace(0.1, 1.0, CLASSES)
    feature = NOISE * generator.standard_normal((videos, FRAMES, WIDTH)).astype(np.float32)
    label = np.zeros((videos, CLASSES), np.float32)
    for n in range(videos):
        for c in generator.choice(CLASSES, generator.integers(1, 4), replace=False):
            length = max(1, round(duty_C[c] * FRAMES))
            start = generator.integers(0, FRAMES - length + 1)
            feature[n, start : start + length] += generator.uniform(0.7, 1.3, (length, 1)) * direction_CD[c]
            label[n, c] = 1
    return torch.from_numpy(feature), torch.from_numpy(label)


class Annotator(nn.Module):
    """Frame network and pooling head."""

    def __init__(self, options: dict) -> None:
        super().__init__()
        self.frames = nn.Sequential(nn.Linear(WIDTH, 48), nn.ReLU(), nn.Linear(48, CLASSES))
        self.pooling = make_pooling(options["name"], CLASSES, **{k: v for k, v in options.items() if k != "name"})

    def forward(self, feature_NTD: Tensor):
        mask_NT = torch.ones(feature_NTD.shape[:2], dtype=torch.bool)
        return self.pooling(self.frames(feature_NTD), mask_NT), mask_NT


def run(variant: str, seed: int, epochs: int = 40) -> dict[str, float]:
    """Train one head with one loss on one draw of the data."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    direction_CD = unit_rows(generator, CLASSES, WIDTH)
    training, dev, test = (draw(generator, videos, direction_CD) for videos in (800, 300, 600))
    options, weight = VARIANTS[variant]
    model = Annotator(options)
    learnt = model.pooling.exponent.value_C if model.pooling.exponent is not None else None
    wrong_sign, trace, early = 0, [], {}

    def loss(index: Tensor) -> Tensor:
        pooled, mask_NT = model(training[0][index])
        if weight is None:
            return binary_bag_loss(pooled, training[1][index])
        return bag_instance_loss(pooled, training[1][index], mask_NT, weight)

    def after_step() -> None:
        nonlocal wrong_sign
        if learnt is not None:
            wrong_sign += int((learnt.grad > 0).sum())

    @torch.no_grad()
    def score(split: tuple[Tensor, Tensor]) -> float:
        return score_map(model(split[0])[0].log_p_BC.numpy(), split[1].numpy())

    def after_epoch(epoch: int) -> None:
        if learnt is not None:
            trace.append(learnt.detach().clone())
        if epoch == 3:
            early["map after 4 epochs"] = score(test)

    train(model, loss, 800, epochs=epochs, batch=50, lr=2e-3, after_step=after_step, after_epoch=after_epoch)
    result = {TEST: score(test), DEV: score(dev), **early}
    if learnt is not None:
        r_EC = torch.stack(trace)
        result["rho(r, duty cycle)"] = rank_correlation(r_EC[-1].numpy(), np.linspace(0.1, 1.0, CLASSES))
        result["rho(r, frame deviation)"] = rank_correlation(r_EC[-1].numpy(), _deviation(model, test))
        result["mean r"] = float(r_EC[-1].mean())
        result["epochs in which an r fell"] = float((r_EC.diff(dim=0) < 0).any(dim=1).sum())
        result["gradients that lower r"] = float(wrong_sign)
    return result


@torch.no_grad()
def _deviation(model: Annotator, split: tuple[Tensor, Tensor]) -> np.ndarray:
    # nu_c: standard deviation of the frame scores inside a video, mean over the class's positive videos
    spread_NC = model.frames(split[0]).sigmoid().std(dim=1)
    return ((spread_NC * split[1]).sum(dim=0) / split[1].sum(dim=0)).numpy()

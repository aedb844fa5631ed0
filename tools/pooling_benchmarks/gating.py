"""Context Gating: tagging where a word's meaning hangs on the scene ("polysemy").

40 labels in 20 pairs. A pair has two words; which word stands for which label is swapped by the parity of the
scene, which other frames of the video show. Legend: N videos, T snippets, D feature width, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from pooling_benchmarks.training import train, unit_rows
from wtal.evaluation.classification import global_average_precision
from wtal.models.losses import class_summed_loss
from wtal.models.video_classifier.network import VideoClassifier, VideoClassifierSettings

PAIRS, SCENES, WIDTH, FRAMES, NOISE = 20, 12, 16, 32, 0.4
CLASSES = 2 * PAIRS


def _settings(aggregation: str, gate: bool = False, classifier: str = "moe", gate_classes: bool = False):
    return VideoClassifierSettings(
        aggregation=aggregation, clusters=32, hidden=64, classifier=classifier, gate_features=gate,
        gate_classes=gate_classes,
    )  # fmt: skip


VARIANTS: dict[str, VideoClassifierSettings] = {
    "mean + MoE": _settings("mean"),
    "soft-DBoW + MoE": _settings("soft_dbow"),
    "soft-DBoW + CG + MoE": _settings("soft_dbow", gate=True),
    "NetRVLAD + MoE": _settings("netrvlad"),
    "NetRVLAD + CG + MoE": _settings("netrvlad", gate=True),
    "NetFV + MoE": _settings("netfv"),
    "NetFV + CG + MoE": _settings("netfv", gate=True),
    "NetVLAD + MoE": _settings("netvlad"),
    "NetVLAD + CG + MoE": _settings("netvlad", gate=True),
    "NetVLAD + CG + MoE + CG": _settings("netvlad", gate=True, gate_classes=True),
}
CHOICES: dict[str, list[str]] = {}
DEV, TEST = "", "GAP@20"


def draw(generator: np.random.Generator, videos: int, word_WD: np.ndarray, scene_SD: np.ndarray):
    """Features `[N, T, D]`, mask `[N, T]`, labels `[N, C]`; 16 to 32 frames, a quarter of them scenery."""
    feature = NOISE * generator.standard_normal((videos, FRAMES, WIDTH)).astype(np.float32)
    mask = np.zeros((videos, FRAMES), bool)
    label = np.zeros((videos, CLASSES), np.float32)
    for n in range(videos):
        length = generator.integers(FRAMES // 2, FRAMES + 1)
        mask[n, :length] = True
        scene = generator.integers(SCENES)
        pairs = generator.choice(PAIRS, generator.integers(1, 5), replace=False)
        words = 2 * pairs + generator.integers(0, 2, len(pairs))
        label[n, words ^ (scene % 2)] = 1
        shown = generator.choice(words, length)
        shown[: len(words)] = words
        scenery = np.arange(length) >= length - length // 4
        order = generator.permutation(length)
        feature[n, order] += np.where(scenery[:, None], scene_SD[scene], word_WD[shown])
    return torch.from_numpy(feature), torch.from_numpy(mask), torch.from_numpy(label)


def run(variant: str, seed: int, epochs: int = 16, videos: int = 3000) -> dict[str, float]:
    """Train one model on one draw of the data."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    word_WD, scene_SD = unit_rows(generator, CLASSES, WIDTH), unit_rows(generator, SCENES, WIDTH)
    feature, mask, label = draw(generator, videos, word_WD, scene_SD)
    test = draw(generator, 1000, word_WD, scene_SD)
    model = VideoClassifier(VARIANTS[variant], (WIDTH,), CLASSES)

    def loss(index: Tensor) -> Tensor:
        return class_summed_loss(model(feature[index], mask[index]), label[index])

    train(model, loss, videos, epochs=epochs, batch=100, lr=3e-3)
    with torch.no_grad():
        score = model(test[0], test[1]).log_p_BC.numpy()
    return {TEST: global_average_precision(score, test[2].numpy()), "parameters": float(_parameters(model))}


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())

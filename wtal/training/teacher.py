"""The frozen branch as a teacher: its scores over whole training videos, and the pseudo-labels made of them.

Labels are made once a phase, because the teacher does not change in it; a resumed phase makes the same ones again.

Legend: B videos (1 here), T snippets, C classes, D feature width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from wtal.datasets.features import FeatureSet
from wtal.models.branch import BranchOutput, masked_min_max
from wtal.models.build import StreamedBranch
from wtal.pseudo_labels import BACKGROUND, FOREGROUND, UNCERTAIN, ternary_labels
from wtal.training.settings import PseudoLabelSettings


@torch.no_grad()
def score_videos(
    branch: StreamedBranch, features: FeatureSet, ids: Sequence[str], device: torch.device
) -> Iterator[tuple[BranchOutput, Tensor]]:
    """Output of `branch` (in evaluation mode) on each whole video, one after the other, with its mask `[1, T]`."""
    training = branch.training
    branch.eval()
    try:
        made = branch.once()
        for video_id in ids:
            streams = features.read(video_id)
            feature = {
                name: torch.from_numpy(streams[name].astype(np.float32))[None].to(device) for name in branch.streams
            }
            mask_BT = torch.ones(next(iter(feature.values())).shape[:2], dtype=torch.bool, device=device)
            yield branch(feature, mask_BT, made), mask_BT
    finally:
        branch.train(training)


def frame_scores(output: BranchOutput, mask_BT: Tensor, rule: str) -> Tensor:
    """Frame scores 0..1 `[B, T, C]`: P itself (`probability`) or logits min-max scaled per video and class."""
    if rule == "probability":
        return output.p_BTC
    if rule == "minmax":
        return masked_min_max(output.logit_BTC, mask_BT)
    raise ValueError(f"score rule {rule!r} is not one of 'probability', 'minmax'")


def teach(
    branch: StreamedBranch,
    features: FeatureSet,
    ids: Sequence[str],
    label_NC: np.ndarray,
    settings: PseudoLabelSettings,
    taught: bool,
    device: torch.device,
) -> list[np.ndarray]:
    """Pseudo-labels (4) of all videos, one int8 `[T, C]` each. `taught`: whether the teacher was itself taught yet."""
    rule = settings.later if taught else settings.first
    scores = [
        frame_scores(output, mask_BT, rule)[0].cpu() for output, mask_BT in score_videos(branch, features, ids, device)
    ]
    label_NC_tensor = torch.from_numpy(label_NC)
    scale_C = class_scale(scores, label_NC_tensor) if settings.adaptive else torch.ones(label_NC.shape[1])
    labels = []
    for score_TC, label_C in zip(scores, label_NC_tensor, strict=True):
        mask_BT = torch.ones(1, len(score_TC), dtype=torch.bool)
        high_C, low_C = settings.high * scale_C, settings.low * scale_C
        labels.append(ternary_labels(score_TC[None], label_C[None], mask_BT, high_C, low_C)[0].numpy())
    return labels


def class_scale(scores: Sequence[Tensor], label_NC: Tensor) -> Tensor:
    """Per class `[C]`, the 95th percentile of its scores in the videos that have it, at least 0.3 (1 without videos).

    A class whose scores stay low everywhere gets lower thresholds, so that it still has foreground to teach.
    """
    scale_C = torch.ones(label_NC.shape[1])
    for label in range(label_NC.shape[1]):
        own = [score_TC[:, label] for score_TC, row in zip(scores, label_NC, strict=True) if row[label]]
        if own:
            scale_C[label] = torch.cat(own).quantile(0.95).clamp(min=0.3, max=1)
    return scale_C


def drop_contradictions(teacher: Sequence[np.ndarray], student: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Teacher's labels with those made uncertain of which the student is as sure of the opposite."""
    agreed = []
    for taught_TC, own_TC in zip(teacher, student, strict=True):
        opposite = ((taught_TC == FOREGROUND) & (own_TC == BACKGROUND)) | (
            (taught_TC == BACKGROUND) & (own_TC == FOREGROUND)
        )
        agreed.append(np.where(opposite, np.int8(UNCERTAIN), taught_TC))
    return agreed

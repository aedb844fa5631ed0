"""Pseudo-labels of all training videos: made by a teacher, kept for a phase, cut for a batch.

Outside a video's own classes everything is background, so only those of its own are kept: a byte a snippet and class of
the video (and about 150 bytes a video for the array itself), whatever the number of classes is.

Legend: B videos, T snippets, C classes, K own classes of a video, N training videos.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wtal.config.training import PseudoLabelSettings
from wtal.datasets.features import FeatureSet
from wtal.inference.scores import frame_scores, score_videos
from wtal.models.streams import StreamedBranch
from wtal.training.data import Batch
from wtal.training.distillation import BACKGROUND, UNCERTAIN, coverage, ternary_labels


@dataclass(frozen=True)
class PseudoLabels:
    """Ternary labels (4) of the training videos."""

    own_TK: list[np.ndarray]
    """int8 `[T, K]` a video."""
    label_NC: np.ndarray
    """Video-level classes."""

    def dense(self, video: int) -> np.ndarray:
        """Labels of one video for every class, int8 `[T, C]`."""
        own_TK, label_C = self.own_TK[video], self.label_NC[video]
        label_TC = np.full((len(own_TK), len(label_C)), BACKGROUND, dtype=np.int8)
        label_TC[:, np.flatnonzero(label_C)] = own_TK
        return label_TC

    def crops(self, batch: Batch) -> Tensor:
        """Labels of a batch's crops, padded with `UNCERTAIN`: int8 `[B, T, C]`."""
        out_BTC = np.full((*batch.mask_BT.shape, batch.label_BC.shape[1]), UNCERTAIN, dtype=np.int8)
        for row, (video, index) in enumerate(zip(batch.videos, batch.snippets, strict=True)):
            out_BTC[row, : len(index)] = self.dense(video)[index]
        return torch.from_numpy(out_BTC)

    def merged(
        self, other: "PseudoLabels", rule: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]
    ) -> "PseudoLabels":
        """These with another branch's, by `keep_background` or `drop_contradictions`, which leave alone what both call
        background."""
        return PseudoLabels(rule(self.own_TK, other.own_TK), self.label_NC)

    def coverage(self) -> dict[str, float]:
        """Mean over the videos that have a class of the shares of foreground, background and uncertain entries."""
        shares = [_coverage(own_TK) for own_TK in self.own_TK if own_TK.shape[1]]  # a negative has no labelled snippet
        return {name: float(np.mean([share[name] for share in shares])) for name in shares[0]}


def _coverage(own_TK: np.ndarray) -> dict[str, float]:
    length, classes = own_TK.shape
    return coverage(torch.from_numpy(own_TK)[None], torch.ones(1, classes), torch.ones(1, length, dtype=torch.bool))


def teach(
    branch: StreamedBranch,
    features: FeatureSet,
    ids: Sequence[str],
    label_NC: np.ndarray,
    settings: PseudoLabelSettings,
    rule: str,
    device: torch.device,
) -> PseudoLabels:
    """Pseudo-labels (4) of all videos from scores by `rule` (see `frame_scores`), or cut by `otsu`."""
    if rule == "otsu":
        scored = _own_scores(branch, features, ids, label_NC, "minmax", device)
        return PseudoLabels([(score_TK > otsu(score_TK)).astype(np.int8) for score_TK in scored], label_NC)
    return _labels(_own_scores(branch, features, ids, label_NC, rule, device), label_NC, settings)


def teach_together(
    cbp: StreamedBranch,
    vlp: StreamedBranch,
    features: FeatureSet,
    ids: Sequence[str],
    label_NC: np.ndarray,
    settings: PseudoLabelSettings,
    device: torch.device,
) -> PseudoLabels:
    """Pseudo-labels (4) from what both branches say: `P_cbp^(1 - w) * P_vlp^w`, w = `settings.together`."""
    share = settings.together
    pair = (_own_scores(branch, features, ids, label_NC, "probability", device) for branch in (cbp, vlp))
    joint = (cbp_TK ** (1 - share) * vlp_TK**share for cbp_TK, vlp_TK in zip(*pair, strict=True))
    return _labels(joint, label_NC, settings)


def _labels(scored: Iterable[np.ndarray], label_NC: np.ndarray, settings: PseudoLabelSettings) -> PseudoLabels:
    """Ternary labels of frame scores `[T, K]` of each video's own classes."""
    scale_C = torch.ones(label_NC.shape[1])
    if settings.adaptive:
        scored = list(scored)  # four bytes a snippet and own class
        scale_C = class_scale(scored, label_NC)
    high_C, low_C = settings.high * scale_C, settings.low * scale_C
    labels = []
    for score_TK, label_C in zip(scored, label_NC, strict=True):
        own, mask_BT = torch.from_numpy(np.flatnonzero(label_C)), torch.ones(1, len(score_TK), dtype=torch.bool)
        score_BTK = torch.from_numpy(score_TK)[None]
        label_BTK = ternary_labels(score_BTK, torch.ones(1, len(own)), mask_BT, high_C[own], low_C[own])
        labels.append(label_BTK[0].numpy())
    return PseudoLabels(labels, label_NC)


def _own_scores(
    branch: StreamedBranch,
    features: FeatureSet,
    ids: Sequence[str],
    label_NC: np.ndarray,
    rule: str,
    device: torch.device,
) -> Iterator[np.ndarray]:
    """Frame scores of each video's own classes, float32 `[T, K]`, one video after the other."""
    scored = score_videos(branch, features, ids, device)
    for (output, mask_BT), label_C in zip(scored, label_NC, strict=True):
        yield frame_scores(output, mask_BT, rule)[0].cpu().numpy()[:, np.flatnonzero(label_C)]


def otsu(score_TK: np.ndarray) -> np.ndarray:
    """Of each column the value `[K]` that parts it in two groups with the least spread within (Otsu, 1979): halfway
    between two neighbours in order of size; the value itself of a column that has one alone."""
    sorted_TK = np.sort(score_TK.astype(np.float64), axis=0)
    below_T1 = np.arange(1, len(sorted_TK))[:, None]
    above_T1 = len(sorted_TK) - below_T1
    sum_TK = np.cumsum(sorted_TK, axis=0)
    apart_TK = sum_TK[:-1] / below_T1 - (sum_TK[-1] - sum_TK[:-1]) / above_T1
    if not len(apart_TK):
        return sorted_TK[-1]
    # equal neighbours cannot be parted
    between_TK = np.where(sorted_TK[1:] > sorted_TK[:-1], below_T1 * above_T1 * apart_TK**2, 0)
    best_1K = between_TK.argmax(axis=0)[None]
    pair = (np.take_along_axis(sorted_TK, best_1K + step, axis=0)[0] for step in (0, 1))
    return sum(pair) / 2


def class_scale(own_TK: Sequence[np.ndarray], label_NC: np.ndarray) -> Tensor:
    """Per class `[C]`, the 95th percentile of its scores in the videos that have it, at least 0.3 (1 without videos).

    A class whose scores stay low everywhere gets lower thresholds, so that it still has foreground to teach.
    """
    columns: dict[int, list[np.ndarray]] = {}
    for score_TK, label_C in zip(own_TK, label_NC, strict=True):
        for k, label in enumerate(np.flatnonzero(label_C).tolist()):
            columns.setdefault(label, []).append(score_TK[:, k])
    scale_C = torch.ones(label_NC.shape[1])
    for label, parts in columns.items():
        scale_C[label] = torch.from_numpy(np.concatenate(parts)).quantile(0.95).clamp(min=0.3, max=1)
    return scale_C

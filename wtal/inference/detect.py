"""One video's scores to its detections: choose classes, threshold, join, score, suppress.

Legend: T snippets (or upsampled positions), C classes, K kept classes, N proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from feature_extraction.errors import UserError
from wtal.config.inference import InferenceSettings
from wtal.datasets.annotations import Detection
from wtal.inference import proposals as _proposals
from wtal.inference.nms import suppress
from wtal.inference.scores import VideoScores


@dataclass(frozen=True)
class DetectionArrays:
    """Detections of one video by falling score, as arrays of one length."""

    class_N: np.ndarray
    """int64, index into the classes."""
    start_N: np.ndarray
    """float64, seconds."""
    end_N: np.ndarray
    """float64, seconds."""
    score_N: np.ndarray
    """float64."""


def detect(
    scores: VideoScores, classes: Sequence[str], settings: InferenceSettings, other: VideoScores | None = None
) -> list[Detection]:
    """Detections of one video by falling score; times in seconds, inside the video.

    `other` is the second branch, which `settings.fusion` needs. Raises `UserError` for scores that are not finite, a
    number of classes that does not fit, a signal that the branch lacks, and fusion without a second branch.
    """
    if len(classes) != scores.frame_TC.shape[1]:
        raise UserError(f"scores have {scores.frame_TC.shape[1]} classes, the annotations {len(classes)}")
    found = detect_arrays(scores, settings, other)
    names = [classes[index] for index in found.class_N.tolist()]
    return list(map(Detection, found.start_N.tolist(), found.end_N.tolist(), names, found.score_N.tolist()))


def detect_arrays(
    scores: VideoScores, settings: InferenceSettings, other: VideoScores | None = None
) -> DetectionArrays:
    """What `detect` finds, as arrays; raises as `detect` does."""
    scores = fuse(scores, other, settings)
    _require_finite(scores)
    kept_K = choose_classes(scores.video_C, settings)
    if not len(scores.frame_TC) or not len(kept_K):
        return DetectionArrays(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))
    signals: dict[tuple[str, str], np.ndarray] = {}

    def signal(name: str, scaling: str) -> np.ndarray:
        if (name, scaling) not in signals:
            signals[name, scaling] = _signal(scores, name, scaling, kept_K, settings.upsample)
        return signals[name, scaling]

    length = len(scores.frame_TC) * settings.upsample
    parts = [_proposals.propose(signal(p.signal, p.scaling), np.asarray(p.thresholds)) for p in settings.passes]
    found = _proposals.join(parts, length) if len(parts) > 1 else parts[0]
    if settings.min_length:
        found = found[found.end_N - found.start_N >= settings.min_length * settings.upsample]
    score_N = _score(signal(settings.score_signal, settings.score_scaling), found, settings)
    if settings.gamma:
        score_N = score_N + settings.gamma * scores.video_C[kept_K][found.class_N]
    class_N = kept_K[found.class_N]
    start_N = scores.grid.to_seconds(found.start_N / settings.upsample)
    end_N = scores.grid.to_seconds(found.end_N / settings.upsample)
    if scores.duration > 0:
        # The last snippet is padded beyond the end of the video.
        end_N = np.minimum(end_N, scores.duration)
        inside_N = start_N < end_N
        class_N, start_N, end_N, score_N = (array[inside_N] for array in (class_N, start_N, end_N, score_N))
    return _finish(class_N, start_N, end_N, score_N, settings)


def choose_classes(video_C: np.ndarray, settings: InferenceSettings) -> np.ndarray:
    """Indices of the classes to localise in a video, in ascending order; the best class is always among them."""
    if settings.class_rule == "top":
        # A stable sort: of equal scores the first classes.
        return np.sort(np.argsort(-video_C, kind="stable")[: settings.class_top])
    if not len(video_C):
        return np.zeros(0, dtype=np.int64)
    best = int(video_C.argmax())
    bar = settings.class_threshold * (float(video_C[best]) if settings.class_rule == "relative" else 1.0)
    keep_C = video_C > bar
    keep_C[best] = True
    return np.flatnonzero(keep_C)


def fuse(scores: VideoScores, other: VideoScores | None, settings: InferenceSettings) -> VideoScores:
    """The two branches' scores averaged as `settings.fusion` says; attention only where both have one.

    Branches that differ by one snippet are cut to the shorter; more is a `UserError`, and so is fusion without `other`.
    """
    if settings.fusion == "none":
        return scores
    if other is None:
        raise UserError(f"inference.fusion={settings.fusion} needs the scores of both branches, and one is missing")
    if scores.frame_TC.shape[1] != other.frame_TC.shape[1] or scores.grid != other.grid:
        raise UserError("inference.fusion: the two branches' scores differ in classes or time grid")
    length = min(len(scores.frame_TC), len(other.frame_TC))
    if max(len(scores.frame_TC), len(other.frame_TC)) - length > 1:
        raise UserError(
            f"inference.fusion: the branches have {len(scores.frame_TC)} and {len(other.frame_TC)} snippets"
        )
    weight = settings.fusion_weight if settings.fusion == "weighted" else 0.5
    attention_T = scores.attention_T
    if attention_T is not None:
        attention_T = attention_T[:length]
        if other.attention_T is not None:
            attention_T = weight * attention_T + (1 - weight) * other.attention_T[:length]
    return replace(
        scores,
        frame_TC=weight * scores.frame_TC[:length] + (1 - weight) * other.frame_TC[:length],
        video_C=weight * scores.video_C + (1 - weight) * other.video_C,
        attention_T=attention_T,
    )


def _require_finite(scores: VideoScores) -> None:
    arrays = {"frame": scores.frame_TC, "video": scores.video_C, "attention": scores.attention_T}
    for name, array in arrays.items():
        if array is not None and not np.isfinite(array).all():
            raise UserError(
                f"{name} scores hold {int((~np.isfinite(array)).sum())} values that are not finite "
                "(NaN or infinite); "
                "the network diverged or the features are broken"
            )


def _signal(scores: VideoScores, name: str, scaling: str, kept_K: np.ndarray, factor: int) -> np.ndarray:
    frame_TK = scores.frame_TC[:, kept_K]
    if name != "cas":
        if scores.attention_T is None:
            raise UserError(
                f"inference: signal {name!r} needs a branch with attention, and this one has none; use 'cas'"
            )
        attention_TK = np.broadcast_to(scores.attention_T[:, None], frame_TK.shape)
        frame_TK = attention_TK if name == "attention" else frame_TK * attention_TK
    signal_TK = _proposals.upsample(frame_TK, factor)
    return _proposals.stretch(signal_TK) if scaling == "minmax" else signal_TK


def _score(signal_TK: np.ndarray, found: _proposals.Proposals, settings: InferenceSettings) -> np.ndarray:
    if settings.score == "max":
        return _proposals.maximum_inside(signal_TK, found)
    if settings.score == "mean":
        return _proposals.mean_inside(signal_TK, found)
    return _proposals.outer_inner_contrast(signal_TK, found, settings.oic_lambda)


def _finish(
    class_N: np.ndarray, start_N: np.ndarray, end_N: np.ndarray, score_N: np.ndarray, settings: InferenceSettings
) -> DetectionArrays:
    floor = -np.inf if settings.score_floor is None else settings.score_floor
    if settings.nms != "none":
        kept, score_N = suppress(
            class_N,
            start_N,
            end_N,
            score_N,
            settings.nms,
            settings.nms_sigma,
            settings.nms_tiou,
            floor,
            settings.max_detections,
        )
        class_N, start_N, end_N = class_N[kept], start_N[kept], end_N[kept]
    order = np.argsort(-score_N, kind="stable")
    order = order[score_N[order] >= floor]
    if settings.max_detections:
        order = order[: settings.max_detections]
    return DetectionArrays(class_N[order], start_N[order], end_N[order], score_N[order])

"""One video's scores to its detections: choose classes, threshold, join, score, suppress.

Legend: T snippets (or upsampled positions), C classes, K kept classes, N proposals.
"""

from collections.abc import Callable, Collection, Sequence
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
    scores: VideoScores,
    classes: Sequence[str],
    settings: InferenceSettings,
    other: VideoScores | None = None,
    labels: Collection[str] | None = None,
) -> list[Detection]:
    """Detections of one video by falling score; times in seconds, inside the video.

    `other` is the second branch, which `settings.fusion` needs. With `labels` these classes are localised, whatever the
    video scores say. Raises `UserError` for scores that are not finite, a
    number of classes that does not fit, a signal that the branch lacks, and fusion without a second branch.
    """
    if len(classes) != scores.frame_TC.shape[1]:
        raise UserError(f"scores have {scores.frame_TC.shape[1]} classes, the annotations {len(classes)}")
    chosen = None if labels is None else np.flatnonzero([name in labels for name in classes])
    found = detect_arrays(scores, settings, other, chosen)
    names = [classes[index] for index in found.class_N.tolist()]
    return list(map(Detection, found.start_N.tolist(), found.end_N.tolist(), names, found.score_N.tolist()))


def detect_arrays(
    scores: VideoScores,
    settings: InferenceSettings,
    other: VideoScores | None = None,
    chosen_K: np.ndarray | None = None,
) -> DetectionArrays:
    """What `detect` finds, as arrays; raises as `detect` does."""
    scores = fuse(scores, other, settings)
    _require_finite(scores)
    kept_K = choose_classes(scores.video_C, settings) if chosen_K is None else chosen_K
    if not len(scores.frame_TC) or not len(kept_K):
        return DetectionArrays(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))
    signals: dict[tuple[str, str], np.ndarray] = {}

    def signal(name: str, scaling: str) -> np.ndarray:
        if (name, scaling) not in signals:
            signals[name, scaling] = _signal(scores, name, scaling, kept_K, settings)
        return signals[name, scaling]

    scored = signal(settings.score_signal, settings.score_scaling)
    found, score_N = (_repeated if settings.repeats else _distinct)(signal, scored, settings)
    if settings.gamma:
        score_N = score_N + settings.gamma * scores.video_C[kept_K][found.class_N]
    class_N = kept_K[found.class_N]
    long_N = found.end_N - found.start_N >= settings.min_length * settings.upsample
    start_N = scores.grid.to_seconds(found.start_N / settings.upsample)
    end_N = scores.grid.to_seconds(found.end_N / settings.upsample)
    if scores.duration > 0:
        # The last snippet is padded beyond the end of the video.
        end_N = np.minimum(end_N, scores.duration)
        inside_N = start_N < end_N
        arrays = (class_N, start_N, end_N, score_N, long_N)
        class_N, start_N, end_N, score_N, long_N = (array[inside_N] for array in arrays)
    added = {"none": 0.0, "snippet": scores.grid.snippet_seconds, "second": 1.0}[settings.nms_added]
    return _finish(class_N, start_N, end_N, score_N, long_N, added, settings)


def _distinct(
    signal: Callable[[str, str], np.ndarray], scored_TK: np.ndarray, settings: InferenceSettings
) -> tuple[_proposals.Proposals, np.ndarray]:
    """Every segment of the passes once, and its score."""
    passes = settings.passes
    parts = [_proposals.propose(signal(p.signal, p.scaling), p.thresholds, settings.first_alone) for p in passes]
    found = _proposals.unique(_proposals.join(parts), len(scored_TK))
    found = _long_enough(found, settings)
    return found, _score(scored_TK, found, settings)


def _repeated(
    signal: Callable[[str, str], np.ndarray], scored_TK: np.ndarray, settings: InferenceSettings
) -> tuple[_proposals.Proposals, np.ndarray]:
    """The segments of every pass and threshold by class, in that order, and their scores."""
    parts, scores = [], []
    for one in settings.passes:
        signal_TK = signal(one.signal, one.scaling)
        for thresholds in [[t] for t in one.thresholds] if one.zero_below else [one.thresholds]:
            found = _long_enough(_proposals.propose(signal_TK, thresholds, settings.first_alone), settings)
            seen_TK = np.where(signal_TK < thresholds[0], 0, scored_TK) if one.zero_below else scored_TK
            parts.append(found)
            scores.append(_score(seen_TK, found, settings))
    found = _proposals.join(parts)
    order = np.argsort(found.class_N, kind="stable")
    return found[order], np.concatenate(scores)[order]


def _long_enough(found: _proposals.Proposals, settings: InferenceSettings) -> _proposals.Proposals:
    if not settings.min_length or settings.min_length_at == "after":
        return found
    return found[found.end_N - found.start_N >= settings.min_length * settings.upsample]


def choose_classes(video_C: np.ndarray, settings: InferenceSettings) -> np.ndarray:
    """Indices of the classes to localise in a video, in ascending order; the best class is always among them,
    unless `settings.class_required` is off."""
    if settings.class_rule == "top":
        # A stable sort: of equal scores the first classes.
        return np.sort(np.argsort(-video_C, kind="stable")[: settings.class_top])
    if not len(video_C):
        return np.zeros(0, dtype=np.int64)
    best = int(video_C.argmax())
    bar = settings.class_threshold * (float(video_C[best]) if settings.class_rule == "relative" else 1.0)
    keep_C = video_C > bar
    keep_C[best] |= settings.class_required
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
    attention_T, raw_TC = scores.attention_T, scores.raw_TC
    if attention_T is not None:
        attention_T = attention_T[:length]
        if other.attention_T is not None:
            attention_T = weight * attention_T + (1 - weight) * other.attention_T[:length]
    return replace(
        scores,
        frame_TC=weight * scores.frame_TC[:length] + (1 - weight) * other.frame_TC[:length],
        video_C=weight * scores.video_C + (1 - weight) * other.video_C,
        attention_T=attention_T,
        raw_TC=None if raw_TC is None else raw_TC[:length],  # no probability, so the other branch has no part in it
    )


def _require_finite(scores: VideoScores) -> None:
    arrays = {"frame": scores.frame_TC, "video": scores.video_C, "attention": scores.attention_T, "raw": scores.raw_TC}
    for name, array in arrays.items():
        if array is not None and not np.isfinite(array).all():
            raise UserError(
                f"{name} scores hold {int((~np.isfinite(array)).sum())} values that are not finite "
                "(NaN or infinite); "
                "the network diverged or the features are broken"
            )


def _signal(
    scores: VideoScores, name: str, scaling: str, kept_K: np.ndarray, settings: InferenceSettings
) -> np.ndarray:
    frame_TK = (scores.raw_TC if name == "raw" and scores.raw_TC is not None else scores.frame_TC)[:, kept_K]
    if name != "cas" and (scores.raw_TC if name == "raw" else scores.attention_T) is None:
        raise UserError(f"inference: signal {name!r} needs a branch with attention, and this one has none; use 'cas'")
    if name in ("attention", "product"):
        attention_TK = np.broadcast_to(scores.attention_T[:, None], frame_TK.shape)
        frame_TK = attention_TK if name == "attention" else frame_TK * attention_TK
    frame_TK = _proposals.stretch(frame_TK) if scaling == "minmax" else frame_TK
    return _proposals.upsample(frame_TK, settings.upsample, settings.upsample_at)


def _score(signal_TK: np.ndarray, found: _proposals.Proposals, settings: InferenceSettings) -> np.ndarray:
    if settings.score == "max":
        return _proposals.maximum_inside(signal_TK, found)
    if settings.score == "mean":
        return _proposals.mean_inside(signal_TK, found)
    return _proposals.outer_inner_contrast(signal_TK, found, settings.oic_lambda)


def _finish(
    class_N: np.ndarray,
    start_N: np.ndarray,
    end_N: np.ndarray,
    score_N: np.ndarray,
    long_N: np.ndarray,
    added: float,
    settings: InferenceSettings,
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
            added,
            settings.decay_negative,
        )
        class_N, start_N, end_N, long_N = class_N[kept], start_N[kept], end_N[kept], long_N[kept]
    order = np.argsort(-score_N, kind="stable")
    order = order[(score_N[order] >= floor) & long_N[order]]
    if settings.max_detections:
        order = order[: settings.max_detections]
    return DetectionArrays(class_N[order], start_N[order], end_N[order], score_N[order])

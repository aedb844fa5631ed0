"""Settings of inference: from frame and video scores to detections."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from feature_extraction.errors import UserError
from wtal.config.strict import build

Signal = Literal["cas", "attention", "product"]
Scaling = Literal["minmax", "absolute"]


@dataclass(frozen=True, kw_only=True)
class ProposalPass:
    """One more signal to threshold, beside the first one."""

    signal: Signal = "attention"
    """`cas`: frame probability of the class; `attention`: class-agnostic actionness; `product`: both
    multiplied."""
    thresholds: tuple[float, ...] = (0.5,)
    """Proposals are the runs of snippets strictly above each of these."""
    scaling: Scaling = "absolute"
    """`minmax`: the signal is stretched to 0..1 per video and class before thresholding (a flat one is left
    alone)."""

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds)


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """From frame and video scores to detections. The defaults are the preset `paper`."""

    class_rule: Literal["relative", "absolute", "top"] = "relative"
    """Which classes of a video are localised: those whose video score is above `class_threshold` times the
    best class's (`relative`), above `class_threshold` (`absolute`), or the `class_top` best (`top`). The best
    class always is. The paper's theta_cls = 0.85 on a softmax over classes would by itself keep at most one
    class in a video where two may be present, so it is read as relative."""
    class_threshold: float = 0.85
    """theta_cls, 0..1."""
    class_top: int = 1
    """Classes of a video under the rule `top`."""
    class_rows: tuple[Literal["cbp_warmup", "vlp_raw", "vlp", "ours"], ...] = ()
    """Rows of the run whose mean video score chooses the classes of a video, in place of the row's own: equation (5)
    has no video-level term, so what the CBP branch knows of whole videos fades while it is taught, and frozen CLIP
    knows something else. Empty: the row's own, as in the paper."""
    video_classifier: str = ""
    """Folder that `wtal train-video-classifier` made: its class probabilities of the video take the place of
    the branch's own where classes are chosen. Empty: the branch's own."""
    video_classifier_weight: float = 1.0
    """Share of the video classifier in the video score, 0..1; the branch has the rest."""
    fusion: Literal["none", "average", "weighted"] = "none"
    """Average this branch's frame and video scores with the other branch's (Table 4 of the paper)."""
    fusion_weight: float = 0.5
    """Weight of this branch under `weighted`; the other branch has the rest."""
    signal: Signal = "cas"
    """What is thresholded. `cas`: frame probability of the class; `attention`: class-agnostic actionness,
    with the same proposals for every class; `product`: both multiplied."""
    thresholds: tuple[float, ...] = (0.45,)
    """theta_loc. Proposals are the runs of snippets strictly above each of these."""
    scaling: Scaling = "minmax"
    """`minmax`: the signal is stretched to 0..1 per video and class before thresholding (a flat one is left
    alone); `absolute`: thresholds apply to the scores as they are. Silent in the paper."""
    more: tuple[ProposalPass, ...] = ()
    """Further signals to threshold; their proposals join the first one's."""
    upsample: int = 1
    """Positions per snippet: signals are interpolated linearly to a finer axis before thresholding."""
    min_length: float = 0.0
    """Shortest proposal kept, in snippets (not in upsampled positions)."""
    score: Literal["max", "mean", "oic"] = "max"
    """Score of a proposal: largest or mean value inside, or outer-inner contrast (mean inside less mean
    around)."""
    score_signal: Signal = "cas"
    """What the score is computed from."""
    score_scaling: Scaling = "absolute"
    """Scaling of `score_signal`. With `minmax` and `max` the best proposal of every video scores 1."""
    oic_lambda: float = 0.25
    """Outer-inner contrast: length of the surroundings on each side, in lengths of the proposal."""
    gamma: float = 0.0
    """Weight of the video's score of the class, added to the proposal's score."""
    nms: Literal["none", "hard", "gaussian", "linear"] = "gaussian"
    """Suppression among the proposals of one class: `hard` drops those above `nms_tiou`; `gaussian`
    multiplies by exp(-tIoU^2 / nms_sigma); `linear` multiplies by 1 - tIoU above `nms_tiou`. The tIoU is
    exact, in seconds."""
    nms_sigma: float = 0.3
    """Sigma of `gaussian`."""
    nms_tiou: float = 0.5
    """tIoU threshold of `hard` and `linear`."""
    score_floor: float | None = None
    """Detections that score lower, after suppression, are dropped."""
    max_detections: int = 0
    """Most detections of a video, the best ones; 0: no limit."""

    def __post_init__(self) -> None:
        if not 0 <= self.video_classifier_weight <= 1:
            raise UserError(f"inference.video_classifier_weight must be in [0, 1], got {self.video_classifier_weight}")
        if len(set(self.class_rows)) < len(self.class_rows):
            raise UserError(f"inference.class_rows names a row twice: {', '.join(self.class_rows)}")
        _check_thresholds(self.thresholds)
        for name in ("class_threshold", "fusion_weight", "nms_tiou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"inference.{name} must be in [0, 1], got {getattr(self, name)}")
        for name, least in (("class_top", 1), ("upsample", 1), ("max_detections", 0)):
            if getattr(self, name) < least:
                raise UserError(f"inference.{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("min_length", "oic_lambda"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"inference.{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.nms_sigma < math.inf:
            raise UserError(f"inference.nms_sigma must be a positive number, got {self.nms_sigma}")
        if not math.isfinite(self.gamma) or (self.score_floor is not None and not math.isfinite(self.score_floor)):
            raise UserError("inference.gamma and inference.score_floor must be finite numbers")

    @property
    def passes(self) -> tuple[ProposalPass, ...]:
        """Every signal that is thresholded, the first one included."""
        first = ProposalPass(signal=self.signal, thresholds=self.thresholds, scaling=self.scaling)
        return (first, *self.more)


def _check_thresholds(thresholds: tuple[float, ...]) -> None:
    if not thresholds:
        raise UserError("inference.thresholds is empty; give at least one, for example [0.45]")
    for value in thresholds:
        if not (math.isfinite(value) and 0 <= value < 1):
            raise UserError(f"inference.thresholds must be in [0, 1), got {value}")


PRESETS: dict[str, dict[str, Any]] = {
    # Ju et al., CVPR 2023: one threshold, highest score inside, soft-NMS. theta_cls is read as relative.
    "paper": {
        "class_rule": "relative",
        "class_threshold": 0.85,
        "signal": "cas",
        "thresholds": [0.45],
        "scaling": "minmax",
        "more": [],
        "upsample": 1,
        "min_length": 0.0,
        "score": "max",
        "score_signal": "cas",
        "score_scaling": "absolute",
        "gamma": 0.0,
        "nms": "gaussian",
        "nms_sigma": 0.3,
    },
    # CO2-Net, ACM MM 2021 (DELU: 20 thresholds, proposals of at least 2 snippets): attention alone is
    # thresholded. The published soft-NMS adds 1 to all lengths; ours has the exact tIoU.
    "co2net": {
        "class_rule": "absolute",
        "class_threshold": 0.2,
        "signal": "attention",
        "thresholds": [round(0.1 + 0.8 * i / 9, 6) for i in range(10)],
        "scaling": "absolute",
        "more": [],
        "upsample": 1,
        "min_length": 0.0,
        "score": "oic",
        "score_signal": "product",
        "score_scaling": "absolute",
        "oic_lambda": 0.25,
        "gamma": 0.2,
        "nms": "gaussian",
        "nms_sigma": 0.3,
    },
    # UM, AAAI 2021: scores times feature magnitude, and magnitude alone, both thresholded on a 24 times finer
    # axis. The published code sets scores below the threshold to 0 before the contrast, so that its outer
    # part is near 0.
    "um": {
        "class_rule": "absolute",
        "class_threshold": 0.2,
        "signal": "product",
        "thresholds": [round(0.025 * i, 6) for i in range(10)],
        "scaling": "minmax",
        "more": [
            {
                "signal": "attention",
                "thresholds": [round(0.4 + 0.025 * i, 6) for i in range(9)],
                "scaling": "absolute",
            }
        ],
        "upsample": 24,
        "min_length": 0.083,
        "score": "oic",
        "score_signal": "product",
        "score_scaling": "minmax",
        "oic_lambda": 0.25,
        "gamma": 0.2,
        "nms": "hard",
        "nms_tiou": 0.6,
    },
}


def preset(name: str) -> InferenceSettings:
    """The settings of a preset. Raises `UserError` for an unknown name."""
    return build(InferenceSettings, _values(name), "inference")


def expand_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's mapping with `inference.preset` replaced by its settings; the section's other keys
    win."""
    inference = values.get("inference")
    if not isinstance(inference, Mapping) or "preset" not in inference:
        return dict(values)
    own = {key: value for key, value in inference.items() if key != "preset"}
    return {**values, "inference": {**_values(inference["preset"]), **own}}


def expand_assignments(assignments: Sequence[str]) -> list[str]:
    """`inference.preset=NAME` among `a.b=value` assignments replaced by one assignment for each of its
    settings."""
    expanded = []
    for assignment in assignments:
        key, _, name = assignment.partition("=")
        if key == "inference.preset":
            expanded += [f"inference.{field}={json.dumps(value)}" for field, value in _values(name).items()]
        else:
            expanded.append(assignment)
    return expanded


def _values(name: Any) -> dict[str, Any]:
    if name not in PRESETS:
        raise UserError(f"inference.preset {name!r} is not one of {', '.join(PRESETS)}")
    return PRESETS[name]

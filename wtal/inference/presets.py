"""Inference as published: named sets of settings.

In a configuration `inference: {preset: um, nms_tiou: 0.5}` takes the set and then the other keys; on the
command line `inference.preset=um` stands for its settings in that place, and later assignments win.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from feature_extraction.errors import UserError
from wtal.inference.settings import InferenceSettings
from wtal.strict import build

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

"""The configuration that `wtal init` writes: every section with why it is as it is.

Legend: nothing here is an array.
"""

import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from feature_extraction.errors import UserError
from wtal.config.shipped import WEAK_TOWERS
from wtal.datasets.annotations import AnnotationSet


def choose_towers(wanted: str) -> tuple[str, str]:
    """`public` or `shipped`, and why. Raises `UserError` where the public ones are asked for and lack weights."""
    from feature_extraction.networks import weights
    from feature_extraction.networks.clip_models import public_clip

    lacking = [name for name in ("i3d-rgb", "i3d-flow") if weights.find(name) is None]
    if public_clip() is None:
        lacking.append("clip")
    if not lacking:
        said = "as asked for" if wanted == "public" else "their weights are on this machine"
        if wanted != "shipped":
            return "public", f"Kinetics I3D and CLIP ViT-B/16: {said}."
    elif wanted == "public":
        raise UserError(
            f"--towers public: no weights of {', '.join(lacking)} on this machine; get them with "
            f"`wtal weights fetch {' '.join(lacking)}`, or take --towers shipped for a trial"
        )
    reason = (
        "as asked for" if wanted == "shipped" else f"because weights of {', '.join(lacking)} are not on this machine"
    )
    return "shipped", f"the small sandbox towers, {reason}. {WEAK_TOWERS}"


Section = tuple[str, dict[str, Any], str]


def configuration(
    folder: Path,
    annotations_file: Path,
    annotations: AnnotationSet,
    config: Path,
    towers: str,
    why: str,
    seed: int,
) -> list[Section]:
    """(section, settings, why) in the order of the file. Settings that are not named keep their defaults."""
    videos = annotations.videos.values()
    training = [video for video in videos if video.subset == "training"]
    place = config.absolute().parent
    sections: list[Section] = [
        ("out", {"out": str(place / "runs" / config.stem)}, "The run folder."),
        ("seed", {"seed": seed}, "Everything random in training."),
        (
            "data",
            {
                "videos": str(folder.resolve()),
                "annotations": str(annotations_file.absolute()),
                "features": str(place / "features" / config.stem),
                "missing": "skip",
            },
            f"{len(training)} videos train, {len(videos) - len(training)} are predicted on. A video "
            "that cannot be read is left out and named, so that one broken file does not stop the run.",
        ),
    ]
    if towers == "shipped":
        from wtal.config.shipped import config_file
        from wtal.config.strict import read_yaml

        shipped = read_yaml(config_file("sandbox"))
        reasons = {"extraction": why, "optimizer": "As for the built-in sandbox, whose networks these are."}
        for name in ("extraction", "cbp", "vlp", "optimizer"):
            if name in shipped:
                sections.append((name, dict(shipped[name]), reasons.get(name, "Sized for the small networks.")))
        grid = (float(shipped["extraction"].get("fps", 25)), int(shipped["extraction"].get("stride", 16)))
    else:
        sections.append(("extraction", {"fps": 25.0, "window": 16, "stride": 16}, why))
        sections.append(("optimizer", {}, ""))
        grid = (25.0, 16)
    longest = max((video.duration or 0.0) for video in training)
    snippets = min(1000, max(64, math.ceil(longest * grid[0] / grid[1])))
    optimizer = next(values for name, values, _ in sections if name == "optimizer")
    optimizer |= {"batch": min(10, len(training)), "snippets": snippets}
    place_of = [name for name, _, _ in sections].index("optimizer")
    sections[place_of] = (
        "optimizer",
        optimizer,
        f"Batches of {optimizer['batch']} videos; {snippets} snippets of a video at a time, because the "
        f"longest training video has {longest:.0f} s.",
    )
    if any(video.negative for video in training) or len(annotations.classes) == 1:
        pooling = dict(next((values for name, values, _ in sections if name == "cbp"), {}))
        pooling["pooling"] = {"name": "topk", "space": "prob"}
        reason = (
            "A video may show none of the classes: each class is a yes or no of its own, where a softmax over classes "
            "would always give one of them (and is 1 everywhere for one class)."
        )
        sections = [section for section in sections if section[0] != "cbp"]
        sections.append(("cbp", pooling, reason))
        why_bags = (
            "Video labels go on teaching beside the pseudo-labels: only they say that nothing happens in a negative "
            "(without them, on the sandbox, scores of negatives rise until half of them have detections)."
        )
        sections.append(("loss", {"cls": 1.0}, why_bags))
        rule = {"class_rule": "absolute", "class_threshold": 0.5, "class_required": False}
        why_rule = "Only classes whose video score is above 0.5 are localised, in many videos none."
        sections.append(("inference", rule, why_rule))
    elif all(len(video.labels) == 1 for video in training):
        rule = {"class_rule": "top", "class_top": 1}
        sections.append(("inference", rule, "Every training video has one class, so each video gets one."))
    else:
        rule = {"class_rule": "relative", "class_threshold": 0.3}
        sections.append(
            (
                "inference",
                rule,
                "Videos may have several classes: those are kept whose video score is near the best's.",
            )
        )
    return sections


def as_yaml(sections: Iterable[Section], config: Path) -> str:
    """The file's text: a comment that says why above every section."""
    parts = [f"# Made by `wtal init`. To train and predict: wtal run {config.name}\n"]
    for name, values, why in sections:
        if not values:
            continue
        parts.append("".join(f"# {line}\n" for line in textwrap.wrap(why, 100)))
        content = values if name in values else {name: values}
        parts[-1] += yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return "\n".join(parts)

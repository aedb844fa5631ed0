"""The card of a packed model: what it finds, what it learnt from, how good it was, what it needs; all from the run.

Legend: nothing here is an array.
"""

from collections import Counter
from typing import Any

from feature_extraction.files import read_json
from feature_extraction.settings import ExtractionSettings
from wtal.config.shipped import WEAK_TOWERS, weak_towers
from wtal.datasets.splits import Splits
from wtal.runs.localizer import Localizer
from wtal.runs.measure import summary_table
from wtal.training.collapse import collapses


def model_card(localizer: Localizer, parts: Splits, licence: str, name: str) -> str:
    """Markdown. Text of the run (class names) stands in code marks, so that it is shown as it is."""
    config, run = localizer.config, localizer.run
    manifest = run.manifest()
    train, test = parts.train.videos.values(), parts.test.videos.values()
    counts = Counter(label for video in train for label in video.labels)
    negatives = sum(video.negative for video in train)
    grid = config.extraction.grid
    lines = [
        f"# {_code(name)}",
        "",
        f"Finds {len(localizer.classes)} action(s) in untrimmed videos and says when they happen: temporal action "
        "localization learnt from video-level labels alone, with wtal.",
        "",
        "```sh",
        f"wtal predict {name} --video new.mp4 --out detections.json",
        "```",
        "",
        "| class | training videos |",
        "|---|---|",
        *(f"| {_code(label)} | {counts[label]} |" for label in localizer.classes),
        *([f"| none of them (negatives) | {negatives} |"] if negatives else []),
        "",
        "## How good it was",
        "",
        *_metrics(run, len(test)),
        "",
        "## What it needs",
        "",
        f"- Features at {grid.fps:g} frames a second, {grid.window} frames a snippet, one every {grid.stride}, streams "
        f"{', '.join(config.cbp.streams)}; the networks are named in the file and checked when it is used.",
        f"- Weights: RGB {_code(_rgb(config.extraction))}, flow {_code(config.extraction.i3d_flow)}"
        + (f", CLIP {_code(config.extraction.clip_model)}" if config.inference.fusion != "none" else "")
        + ". They are not in the file and have licences of their own.",
        *([f"- {WEAK_TOWERS}"] if weak_towers(config.extraction, config.data.videos) else []),
        "",
        "## How it was made",
        "",
        f"- Method: {config.schedule.strategy}, classification branch {_code(config.cbp.name)}, seed {config.seed}; "
        f"started {manifest.get('started', 'at an unknown time')}.",
        f"- Software: {', '.join(f'{k} {v}' for k, v in (manifest.get('packages') or {}).items() if v)}.",
        *(f"- Warning: {text}" for text in collapses(run.records())),
        "",
        "## Licence",
        "",
        licence or "Not stated by who packed it.",
        "",
    ]
    return "\n".join(lines)


def _metrics(run: Any, videos: int) -> list[str]:
    if not run.summary.is_file():
        return [f"Not measured: none of the {videos} test videos has ground-truth segments."]
    summary = read_json(run.summary)
    return [
        f"Detection mAP in per cent under the protocol `{summary['protocol']}`, frame mIoU, on {summary['videos']} "
        "test videos; the row `ours` is what this file holds. Other machines give somewhat other numbers for the same "
        "seed.",
        "",
        "```",
        summary_table(summary),
        "```",
    ]


def _rgb(extraction: ExtractionSettings) -> str:
    own = extraction.rgb_model == "i3d"
    return extraction.i3d_rgb if own else f"torchvision {extraction.rgb_model}, {extraction.rgb_weights}"


def _code(text: str) -> str:
    """Text in code marks; what would end them, or the line, is taken out."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"

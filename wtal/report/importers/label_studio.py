"""Label Studio tasks (JSON): the newest annotation of each task, or its predictions where nobody annotated
it."""

import math
from pathlib import Path
from typing import Any

from feature_extraction.errors import UserError
from feature_extraction.files import read_json
from wtal.datasets.annotations import AnnotationSet
from wtal.report.interchange import FRAME_RATE, Interval, LabelledVideo, to_annotations
from wtal.report.media import id_of_media


def read(path: Path) -> AnnotationSet:
    """Frames become seconds by the `frame_rate` that our export puts into the task, else 25 (Label Studio's
    default)."""
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise UserError(
            f"{path}: no Label Studio export (expected a list of tasks; export as JSON, not JSON-MIN)"
        )
    try:
        return to_annotations([_video(path, task) for task in tasks])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: a broken Label Studio task ({type(error).__name__}: {error})") from None


def _video(path: Path, task: dict[str, Any]) -> LabelledVideo:
    data = task["data"]
    rate = float(data.get("frame_rate") or FRAME_RATE)
    if not 0 < rate < math.inf:
        raise UserError(f"{path}: task {task.get('id')}: frame_rate must be over 0, got {data['frame_rate']!r}")
    made = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
    if made:
        # Label Studio appends; the time of the last change says which of several is meant.
        chosen = [max(made, key=lambda a: a.get("updated_at") or a.get("created_at") or "")]
    else:
        chosen = task.get("predictions") or []
    intervals = []
    for result in (result for choice in chosen for result in choice["result"]):
        if result.get("type") != "timelinelabels":
            continue
        value = result["value"]
        labels = value.get("timelinelabels") or []
        if not labels:
            raise UserError(
                f"{path}: task {task.get('id')}: a region without label; label it in Label Studio"
            )
        if wrong := [label for label in labels if not isinstance(label, str)]:
            raise UserError(f"{path}: task {task.get('id')}: a label must be text, got {wrong[0]!r}")
        for span in value["ranges"]:
            start, end = (float(span["start"]) - 1) / rate, (float(span["end"]) - 1) / rate
            intervals += [Interval(max(0.0, start), max(0.0, end), label) for label in labels]
    video_id = data.get("video_id") or id_of_media(str(data["video"]))
    duration = data.get("duration")
    return LabelledVideo(str(video_id), tuple(intervals), None if duration is None else float(duration))

"""One video as the script file that its page loads: `fetch` is refused on `file:` pages, a script is not.

Legend: T snippets, C classes of the run, V classes carried to the page.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from wtal.inference.scores import VideoScores
from wtal.report.data import ROW_NAMES, ReportData, ReportVideo
from wtal.report.strip import class_numbers

MAIN_ROW = "ours"
"""The row whose detections are the run's `predictions.json`."""


def script_json(value: Any) -> str:
    """JSON that is safe inside a script, in a file or in a page: ASCII only, no `<`, `>` or `&`."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def video_script(data: ReportData, video: ReportVideo, media: str | None) -> str:
    """The text of `data/<name>.js`: calls the page's `wtalVideo` with all that the page shows of `video`."""
    return f"wtalVideo({script_json(video_payload(data, video, media))});\n"


def video_payload(data: ReportData, video: ReportVideo, media: str | None) -> dict[str, Any]:
    """Scores (float32, little endian, base64, `[T, V]`), intervals in seconds, and the settings behind them.

    Carried classes: those that any row selects for detection, the video's labels, those of its ground truth
    and detections; a hundred classes of half an hour would otherwise be megabytes.
    """
    scores = data.scores(video.video_id)
    index = {name: i for i, name in enumerate(data.classes)}
    selected = {row: selected_classes(data, row_scores) for row, row_scores in scores.items()}
    wanted = {i for kept in selected.values() for i in kept}
    truth = video.ground_truth or ()
    wanted |= {index[name] for name in video.labels if name in index}
    wanted |= {index[item.label] for item in (*truth, *video.detections) if item.label in index}
    carried = sorted(wanted)
    position = {c: v for v, c in enumerate(carried)}
    numbers = class_numbers(video, data.classes)
    # A label that the run does not know (a corrected annotation, another class list) still has to be shown.
    strangers = [name for name in numbers if name not in index]
    names = [data.classes[c] for c in carried] + strangers
    place = {name: v for v, name in enumerate(names)}
    return {
        "id": video.video_id,
        "duration": video.duration,
        "media": media,
        "labels": list(video.labels),
        "classes": names,
        "colors": [numbers[name] % 8 for name in names],
        "truth": None
        if video.ground_truth is None
        else [[t.start, t.end, place[t.label]] for t in sorted(truth, key=lambda t: (t.start, t.end))],
        "ambiguous": [list(segment) for segment in video.ambiguous],
        "detections": [[d.start, d.end, place[d.label], d.score] for d in video.detections],
        "main": MAIN_ROW,
        "threshold": 0.45,
        "rows": _rows(data, scores, carried, selected, position),
    }


def _rows(
    data: ReportData,
    scores: Mapping[str, VideoScores],
    carried: list[int],
    selected: Mapping[str, list[int]],
    position: Mapping[int, int],
) -> list[dict[str, Any]]:
    order = [row for row in ROW_NAMES if row in scores] + [row for row in scores if row not in ROW_NAMES]
    rows = []
    for row in order:
        row_scores = scores[row]
        rows.append(
            {
                "key": row,
                "name": ROW_NAMES.get(row, row),
                "T": int(row_scores.frame_TC.shape[0]),
                "grid": [row_scores.grid.fps, row_scores.grid.window, row_scores.grid.stride],
                "duration": row_scores.duration,
                "frame": _floats(row_scores.frame_TC[:, carried]),
                "video": [float(v) for v in row_scores.video_C[carried]],
                "kept": [position[c] for c in selected[row]],
                "detections": [],
            }
        )
    return rows


def selected_classes(data: ReportData, scores: VideoScores) -> list[int]:
    """Indices of the classes that detection keeps for this video."""
    return []


def _floats(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")

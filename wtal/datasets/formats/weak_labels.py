"""Video-level labels from a spreadsheet (CSV, TSV) or from JSON lines.

    CSV     video,labels,subset,duration
            a.mp4,Diving;Cliff diving,training
    JSONL   {"video": "a.mp4", "labels": ["Diving"], "subset": "training", "duration": 12.5,
             "annotations": [{"label": "Diving", "segment": [1.0, 4.5]}]}

A video is named by its path as extraction saw it, with or without the suffix of a video file. A CSV needs a
column of videos and one of labels; rows of one video add up. Several labels in one cell are parted by `;` or
`|`. Optional columns `start` and `end` (seconds) make the row's label an instance.
"""

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write, parse_json, read_text
from feature_extraction.store.ids import SUFFIX
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation, _seconds, video_from_json
from wtal.datasets.formats.csv_table import read_table

VIDEO_COLUMNS = ("video", "video_id", "videoname", "filename", "file", "path", "id", "name")
LABEL_COLUMNS = ("labels", "label", "event_labels", "event_label", "classes", "class", "action")
SUBSET_COLUMNS = ("subset", "split")
DEFAULT_SUBSET = "training"


@dataclass
class _Draft:
    subset: str = ""
    labels: dict[str, None] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    duration: float | None = None
    negative: bool = False


def read_csv(
    path: Path,
    class_list: Path | None = None,
    default_subset: str = DEFAULT_SUBSET,
    empty_is_negative: bool = False,
) -> AnnotationSet:
    """Read a CSV or TSV of video-level labels; videos that no row gives a `subset` are in `default_subset`.

    `class_list` is a text file of class names, one a line, in index order; without it the classes are the
    labels in alphabetical order. `empty_is_negative`: a video whose rows all have an empty label shows none of the
    classes, where it would be a video of which nothing is known. Raises `UserError` naming the line of what
    `read_table` refuses, of a number that is not finite, half a segment, a video with two subsets, and a label
    that the class list lacks.
    """
    drafts: dict[str, _Draft] = {}
    for line, row in read_table(path, {"of videos": VIDEO_COLUMNS, "of labels": LABEL_COLUMNS}):
        video_id = video_name(_cell(row, VIDEO_COLUMNS))
        if not video_id:
            raise UserError(f"{path}, line {line}: no video in this row")
        draft = _draft(drafts, video_id, _cell(row, SUBSET_COLUMNS), f"{path}, line {line}")
        labels = [name.strip() for name in re.split(r"[;|]", _cell(row, LABEL_COLUMNS)) if name.strip()]
        draft.labels.update(dict.fromkeys(labels))
        draft.negative = empty_is_negative
        start, end, duration = (row.get(name, "").strip() for name in ("start", "end", "duration"))
        if bool(start) != bool(end) or (start and not labels):
            lacking = "label" if start and end else "end" if start else "start"
            raise UserError(f"{path}, line {line}: a segment without {lacking}; fill it in, or empty the others")
        try:
            draft.duration = _seconds(duration) if duration else draft.duration
            draft.instances += [Instance(_seconds(start), _seconds(end), label) for label in labels if start]
        except (ValueError, OverflowError):
            raise UserError(f"{path}, line {line}: start, end and duration must be seconds, got {row!r}") from None
    return _finish(path, drafts, class_list, default_subset)


def read_jsonl(
    path: Path,
    class_list: Path | None = None,
    default_subset: str = DEFAULT_SUBSET,
    empty_is_negative: bool = False,
) -> AnnotationSet:
    """Read one JSON object a line; as `read_csv` otherwise. Raises `UserError` naming the line."""
    drafts: dict[str, _Draft] = {}
    for line, text in enumerate(_lines(path), 1):
        if not text.strip():
            continue
        where = f"{path}, line {line}"
        try:
            entry = parse_json(text)
            name = next(entry[key] for key in VIDEO_COLUMNS if key in entry)
        except (ValueError, RecursionError, StopIteration, TypeError):
            raise UserError(
                f'{where}: expected a JSON object such as {{"video": "a.mp4", "labels": ["Diving"]}}'
            ) from None
        if not isinstance(name, str) or not video_name(name):
            raise UserError(f"{where}: video must be a name, got {name!r}")
        labels = next((entry[key] for key in LABEL_COLUMNS if key in entry), None)
        labels = [labels] if isinstance(labels, str) else labels
        video = video_from_json(Path(where), video_name(name), entry | ({} if labels is None else {"labels": labels}))
        subset = next((entry[key] for key in SUBSET_COLUMNS if entry.get(key) is not None), "")
        if not isinstance(subset, str):
            raise UserError(f"{where}: subset must be a name or null, got {subset!r}")
        draft = _draft(drafts, video.video_id, subset.strip(), where)
        draft.labels.update(dict.fromkeys(video.labels))
        draft.negative |= video.negative or (empty_is_negative and labels is not None)
        draft.instances += video.instances
        draft.duration = video.duration if draft.duration is None else draft.duration
    return _finish(path, drafts, class_list, default_subset)


def write_csv(path: Path, annotations: AnnotationSet) -> None:
    """Write the video-level labels as `video,labels,subset,duration`; instances are left out."""
    import pandas as pd

    if broken := [name for name in annotations.classes if re.search(r"[;|]", name)]:
        raise UserError(f"class {broken[0]!r} holds the character that parts labels in CSV; write jsonl instead")
    rows = [(v.video_id, ";".join(v.labels), v.subset, v.duration) for v in annotations.videos.values()]
    with atomic_write(path, "w") as stream:
        pd.DataFrame(rows, columns=["video", "labels", "subset", "duration"]).to_csv(stream, index=False)


def write_jsonl(path: Path, annotations: AnnotationSet) -> None:
    """Write one JSON object a video, labels and instances; `read_jsonl` gives the same videos back."""
    with atomic_write(path, "w") as stream:
        for video in annotations.videos.values():
            entry: dict[str, Any] = {"video": video.video_id, "subset": video.subset, "labels": list(video.labels)}
            if video.duration is not None:
                entry["duration"] = video.duration
            if video.negative:
                entry["negative"] = True
            if video.instances:
                entry["annotations"] = [{"label": i.label, "segment": [i.start, i.end]} for i in video.instances]
            stream.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")


def read_class_list(path: Path) -> tuple[str, ...]:
    """Class names, one a line, in index order. Raises `UserError` for an empty file and a name that comes
    twice."""
    names = [line.strip() for line in _lines(path) if line.strip()]
    if not names or len(set(names)) < len(names):
        raise UserError(f"{path}: {'a class name comes twice' if names else 'no class names in it'}")
    return tuple(names)


def video_name(path: str) -> str:
    """A video's id from its path: without the suffix of a video or audio file and a leading `./`."""
    return SUFFIX.sub("", path.strip().replace("\\", "/").removeprefix("./"))


def _draft(drafts: dict[str, _Draft], video_id: str, subset: str, where: str) -> _Draft:
    draft = drafts.setdefault(video_id, _Draft())
    if subset and draft.subset and subset != draft.subset:
        raise UserError(f"{where}: video {video_id!r} is in subset {draft.subset!r} and in {subset!r}; choose one")
    draft.subset = draft.subset or subset
    return draft


def _finish(path: Path, drafts: dict[str, _Draft], class_list: Path | None, default_subset: str) -> AnnotationSet:
    seen = sorted({label for d in drafts.values() for label in (*d.labels, *(i.label for i in d.instances))})
    classes = read_class_list(class_list) if class_list else tuple(seen)
    if unknown := sorted(set(seen) - set(classes)):
        where = next(
            video_id for video_id, d in drafts.items() if unknown[0] in {*d.labels, *(i.label for i in d.instances)}
        )
        raise UserError(
            f"{path}: label {unknown[0]!r} of video {where!r} is not in {class_list} ({', '.join(classes[:5])}, ...)"
        )
    videos = {
        video_id: VideoAnnotation(
            video_id,
            d.subset or default_subset,
            tuple(d.labels),
            tuple(d.instances),
            d.duration,
            negative=d.negative and not d.labels,
        )
        for video_id, d in drafts.items()
    }
    return AnnotationSet(classes, videos)


def _cell(row: dict[str, str], columns: Iterable[str]) -> str:
    return next((row[name].strip() for name in columns if name in row), "")


def _lines(path: Path) -> Iterable[str]:
    # not splitlines, which also parts at U+2028, U+0085 and the like: a label may hold them
    return io.StringIO(read_text(path), newline=None)

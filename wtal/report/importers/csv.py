"""A table with the columns video, label, start, end (seconds); further columns are ignored."""

from pathlib import Path

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet
from wtal.datasets.csv_table import read_table
from wtal.report.interchange import Interval, LabelledVideo, to_annotations

NEEDED = ("video", "label", "start", "end")


def read(path: Path) -> AnnotationSet:
    """Separated by comma, semicolon or tab, whichever the header uses; labels keep the blanks around them,
    as our export writes them. Raises `UserError` naming the line."""
    intervals: dict[str, list[Interval]] = {}
    for line, row in read_table(path, {repr(name): (name,) for name in NEEDED}, skip_blanks=False):
        where = f"{path}, line {line}"
        if not row["video"].strip() or not row["label"]:
            raise UserError(f"{where}: video or label is empty")
        interval = Interval(_number(row["start"], where), _number(row["end"], where), row["label"])
        intervals.setdefault(row["video"].strip(), []).append(interval)
    return to_annotations(LabelledVideo(video_id, tuple(found)) for video_id, found in intervals.items())


def _number(value: str, where: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"{where}: {value!r} is not a time in seconds") from None

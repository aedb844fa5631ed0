"""A table with the columns video, label, start, end (seconds); further columns are ignored."""

import csv
import io
from pathlib import Path

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet
from wtal.report.interchange import Interval, LabelledVideo, to_annotations

NEEDED = ("video", "label", "start", "end")


def read(path: Path) -> AnnotationSet:
    """Separated by comma, semicolon or tab, whichever the header uses. Raises `UserError` naming the line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the table as CSV in UTF-8") from None
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    if missing := [name for name in NEEDED if name not in (table.fieldnames or [])]:
        raise UserError(f"{path}: no column {missing[0]!r}; expected the columns {', '.join(NEEDED)}")
    intervals: dict[str, list[Interval]] = {}
    try:
        for row in table:
            where = f"{path}, line {table.line_num}"
            if not row["video"] or not row["label"]:
                raise UserError(f"{where}: video or label is empty")
            intervals.setdefault(row["video"], []).append(
                Interval(_number(row["start"], where), _number(row["end"], where), row["label"])
            )
    except csv.Error as error:
        raise UserError(f"{path}, line {table.line_num}: not valid CSV ({error})") from None
    return to_annotations(LabelledVideo(video_id, tuple(found)) for video_id, found in intervals.items())


def _number(value: str | None, where: str) -> float:
    try:
        return float(value or "")
    except ValueError:
        raise UserError(f"{where}: {value!r} is not a time in seconds") from None

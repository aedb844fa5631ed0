"""Detections as rows: CSV or TSV with a header, THUMOS14's detection lines, and arrays of ActionFormer's kind.

Legend: N detections.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_extraction.errors import UserError
from wtal.datasets.annotations import Detection
from wtal.datasets.formats.predictions.fields import BadField, Labels, fields_of, lacking, number, span

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = ("\t", ",", ";", "|")
NEEDED = ("video", "label", "start", "end", "score")


def separator_of(header: str) -> str:
    """The separator with which `header` names most fields."""
    return max(SEPARATORS, key=lambda mark: len(fields_of(_cells(header, mark))))


def is_header(header: str) -> bool:
    """Whether a line names the video and at least one more field of a detection."""
    fields = fields_of(_cells(header, separator_of(header)))
    return "video" in fields and len(fields) >= 2


def from_csv(path: Path, text: str, labels: Labels) -> tuple[dict[str, list[Detection]], str]:
    """Rows under a header, and which column was taken for what. Raises `UserError` naming line, video and field."""
    header = text.lstrip().split("\n", 1)[0]
    separator = separator_of(header)
    table = _read(path, text, sep=separator, skip_blank_lines=False, index_col=False)
    table.columns = [str(name).strip() for name in table.columns]
    line_N = np.arange(len(table)) + 2 + text[: len(text) - len(text.lstrip())].count("\n")
    fields = fields_of(table.columns)
    if missing := lacking(fields, NEEDED):
        raise UserError(
            f"{path}: no column of {missing} in the first line ({', '.join(table.columns)}); expected the columns "
            "video, label, start, end (seconds) and score, or usual names of them"
        )
    filled_N = (table != "").any(axis=1).to_numpy()
    columns = {field: table[name].to_numpy()[filled_N] for field, name in fields.items()}
    told = ", ".join(f"{field} from {name!r}" for field, name in fields.items() if field in (*NEEDED, "segment"))
    kind = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}[separator]
    return from_columns(path, columns, labels, [f"line {n}" for n in line_N[filled_N]]), f"{kind}-separated, {told}"


def is_thumos_line(line: str) -> bool:
    """Whether a line is `video start end class score`."""
    try:
        _, start, end, _, score = line.split()
        return all(np.isfinite([float(start), float(end), float(score)]))
    except ValueError:
        return False


def from_thumos_txt(path: Path, text: str, labels: Labels) -> dict[str, list[Detection]]:
    """Lines `video start end class score` of the THUMOS challenge; the class by name or number."""
    lines = [(count, line.split()) for count, line in enumerate(text.splitlines(), 1) if line.strip()]
    for count, cells in lines:
        if len(cells) != 5:
            raise UserError(
                f"{path}, line {count}: {len(cells)} fields in {' '.join(cells)[:60]!r}; "
                "expected 'video start end class score' with blanks between"
            )
    names = ("video", "start", "end", "label", "score")
    columns = {name: [cells[i] for _, cells in lines] for i, name in enumerate(names)}
    return from_columns(path, columns, labels, [f"line {count}" for count, _ in lines])


def from_npz(path: Path, content: bytes, labels: Labels) -> tuple[dict[str, list[Detection]], str]:
    """Arrays of one length: video ids, starts, ends (or segments `[N, 2]`), labels and scores. Nothing is
    unpickled."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            names = fields_of(archive.files)
            held = ", ".join(archive.files)
            arrays = {field: archive[name] for field, name in names.items()}
    except ValueError as error:
        advice = (
            "an array of Python objects, which is not unpickled; save video ids as text, np.array(ids, dtype=str)"
            if "allow_pickle" in str(error)
            else " ".join(str(error).split())[:120]
        )
        raise UserError(f"{path}: cannot be read ({advice})") from None
    except Exception as error:  # a damaged archive comes as anything from BadZipFile to zlib.error
        raise UserError(f"{path}: not a whole npz archive ({' '.join(str(error).split())[:120]})") from None
    if missing := lacking(names, NEEDED):
        raise UserError(
            f"{path}: no array of {missing} (there are: {held}); expected video-id, t-start, t-end, label and score"
        )
    if "segment" in arrays:
        segment_N2 = arrays.pop("segment")
        if segment_N2.ndim != 2 or segment_N2.shape[1] != 2:
            raise UserError(f"{path}: the segments are {segment_N2.shape}; expected [N, 2]")
        arrays |= {"start": segment_N2[:, 0], "end": segment_N2[:, 1]}
    sizes = {names.get(field, "segment"): array.shape for field, array in arrays.items()}
    if len(set(sizes.values())) > 1 or any(len(shape) != 1 for shape in sizes.values()):
        raise UserError(f"{path}: the arrays differ in shape ({', '.join(f'{n} {s}' for n, s in sizes.items())})")
    columns = {
        field: [v.decode() if isinstance(v, bytes) else v for v in array.tolist()] for field, array in arrays.items()
    }
    entries = [f"entry {n}" for n in range(1, len(columns["video"]) + 1)]
    return from_columns(path, columns, labels, entries), ", ".join(f"{f} from {n!r}" for f, n in names.items())


def from_columns(
    path: Path, columns: dict[str, Sequence[Any]], labels: Labels, places: Sequence[str]
) -> dict[str, list[Detection]]:
    """Detections by video from columns of one length; `places` says where each row stands."""
    video = [str(name).strip() for name in columns["video"]]
    numbers = []
    if "segment" in columns:
        pairs = _each(path, columns["segment"], span, video, places)
        numbers = [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
    for field in ("start", "end", "score")[2 * bool(numbers) :]:
        numbers.append(_each(path, columns[field], lambda value, field=field: number(field, value), video, places))
    tidy = [value.strip() if isinstance(value, str) else value for value in columns["label"]]
    names = _each(path, tidy, labels, video, places)
    found: dict[str, list[Detection]] = {}
    for place, name, start, end, label, score in zip(places, video, *numbers[:2], names, numbers[2], strict=True):
        if not name:
            raise UserError(f"{path}: {place} names no video")
        found.setdefault(name, []).append(Detection(start, end, label, score))
    return found


def _each(path: Path, values: Sequence[Any], read: Any, video: Sequence[str], places: Sequence[str]) -> list[Any]:
    out = []
    try:
        for value in values:
            out.append(read(value))
    except BadField as bad:
        row = len(out)
        raise UserError(f"{path}: video {video[row]!r}, {places[row]}: {bad}") from None
    return out


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(separator)]


def _read(path: Path, text: str, **options: Any) -> "pd.DataFrame":
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row of more cells than the header
            table = pd.read_csv(io.StringIO(text.lstrip()), dtype=str, keep_default_na=False, **options)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path}: not a whole table ({reason}); put cells that hold the separator into quotes"
        ) from None
    return table.fillna("")

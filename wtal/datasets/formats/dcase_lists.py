"""Sound events as DCASE lists them: tables with a header (2018 and later), and the lists without one of 2017.

    file  onset  offset  label                  task 4 (filename first)
    file  scene  onset  offset  label  ...      task 3 (what follows the label is passed over)
    onset  offset  label                        task 3, one list a recording: the clip is the list's own name
    file                                        a clip without events

Tabs, commas or several blanks part the fields; seconds.
"""

import math
import re
from dataclasses import replace
from pathlib import Path

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation
from wtal.datasets.formats.csv_table import read_text
from wtal.datasets.formats.dcase import clip_id, read_dcase, read_events

EXPECTED = (
    "expected a header such as filename, onset, offset, event_label, or lines 'file onset offset label' "
    "(DCASE 2017: also 'file scene onset offset label') with tabs"
)


def read_truth(path: Path) -> AnnotationSet:
    """Strong (or weak) labels of clips. Raises `UserError` naming file and line."""
    if _has_header(path):
        return read_dcase(path, "reference")
    clips: dict[str, VideoAnnotation] = {}
    for clip, event in _rows(path):
        known = clips.get(clip) or VideoAnnotation(clip, "reference", ())
        if event is not None:
            instance = Instance(event.start, event.end, event.label)
            labels = tuple(dict.fromkeys((*known.labels, event.label)))
            known = replace(known, instances=(*known.instances, instance), labels=labels)
        clips[clip] = known
    return AnnotationSet(tuple(sorted({name for clip in clips.values() for name in clip.labels})), clips)


def read_found(path: Path) -> dict[str, list[Detection]]:
    """Predicted events by clip. Raises `UserError` naming file and line."""
    if _has_header(path):
        return read_events(path)
    found: dict[str, list[Detection]] = {}
    for clip, event in _rows(path):
        found.setdefault(clip, []).extend([event] if event is not None else [])
    return found


def _has_header(path: Path) -> bool:
    first = next((line for line in read_text(path).splitlines() if line.strip()), "")
    return "filename" in {cell.strip().strip('"').lower() for cell in re.split(r"[\t,]", first)}


def _rows(path: Path) -> list[tuple[str, Detection | None]]:
    rows = []
    for count, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        mark = r"\t" if "\t" in line else "," if "," in line else r"\s{2,}"
        cells = [cell.strip() for cell in re.split(mark, line.strip())]
        try:
            rows.append(_row(path, cells))
        except ValueError:
            raise UserError(f"{path}, line {count}: not an event: {line.strip()[:80]!r}; {EXPECTED}") from None
    if not rows:
        raise UserError(f"{path}: no event and no clip in it; {EXPECTED}")
    return rows


def _row(path: Path, cells: list[str]) -> tuple[str, Detection | None]:
    if len(cells) == 1 and re.search(r"\.\w+$", cells[0]):
        return clip_id(cells[0]), None
    times = [index for index in (0, 1, 2) if _is_pair(cells[index : index + 2])]
    if not times or len(cells) < times[0] + 3 or not cells[times[0] + 2]:
        raise ValueError(cells)
    first = times[0]
    start, end = float(cells[first]), float(cells[first + 1])
    clip = clip_id(cells[0]) if first else clip_id(path.stem)
    return clip, Detection(start, end, cells[first + 2], 1.0)


def _is_pair(cells: list[str]) -> bool:
    try:
        start, end = map(float, cells)
    except ValueError:
        return False
    return math.isfinite(start) and math.isfinite(end) and 0 <= start <= end

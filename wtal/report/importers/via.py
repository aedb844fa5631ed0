"""A VIA 3 project: temporal segments of the attribute that names the class."""

from pathlib import Path
from typing import Any

from feature_extraction.errors import UserError
from feature_extraction.files import read_json
from wtal.datasets.annotations import AnnotationSet
from wtal.report.interchange import Interval, LabelledVideo, to_annotations
from wtal.report.media import id_of_media

SEGMENT = "FILE1_Z2_XY0"
"""VIA's anchor of attributes of a time span."""


def read(path: Path) -> AnnotationSet:
    """The class is the attribute called `class`, else the first one of time spans.

    A value that is a key of the attribute's options stands for the option; any other is taken as the text
    itself.
    """
    project = read_json(path)
    if not isinstance(project, dict) or not all(
        isinstance(project.get(k), dict) for k in ("file", "view", "metadata")
    ):
        raise UserError(f"{path}: no VIA 3 project (expected the objects 'file', 'view' and 'metadata')")
    try:
        return _read(path, project)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: a broken VIA 3 project ({type(error).__name__}: {error})") from None


def _read(path: Path, project: dict[str, Any]) -> AnnotationSet:
    spans = {k: a for k, a in project.get("attribute", {}).items() if a.get("anchor_id") == SEGMENT}
    if not spans:
        raise UserError(f"{path}: no attribute of time spans (anchor {SEGMENT}); nothing to import")
    key = next((k for k, a in spans.items() if a.get("aname") == "class"), next(iter(spans)))
    options = spans[key].get("options") or {}
    if wrong := [option for option in options.values() if not isinstance(option, str)]:
        raise UserError(f"{path}: an option of a class must be text, got {wrong[0]!r}")
    files = {view: str(entry["fid_list"][0]) for view, entry in project["view"].items()}
    intervals: dict[str, list[Interval]] = {fid: [] for fid in files.values()}
    for entry in project["metadata"].values():
        if len(entry["z"]) != 2:
            continue  # a spatial region or a marker
        value = str(entry["av"].get(key, ""))
        label = options.get(value, value)
        if not label:
            raise UserError(f"{path}: a time span at {entry['z'][0]} s has no class; give it one in VIA")
        intervals[files[str(entry["vid"])]].append(
            Interval(float(entry["z"][0]), float(entry["z"][1]), label)
        )
    videos = []
    for fid, found in intervals.items():
        file = project["file"][fid]
        videos.append(
            LabelledVideo(str(file.get("video_id") or id_of_media(str(file["fname"]))), tuple(found))
        )
    return to_annotations(videos, [label for label in options.values() if label])

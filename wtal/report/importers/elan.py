"""ELAN `.eaf` files: every time-aligned annotation, its value the class. A folder is read whole."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet
from wtal.report.exporters.elan import ID_PROPERTY
from wtal.report.interchange import Interval, LabelledVideo, to_annotations
from wtal.report.media import id_of_media


def read(path: Path) -> AnnotationSet:
    """One file or all `.eaf` files of a folder. Raises `UserError` naming the file."""
    files = sorted(path.glob("*.eaf")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .eaf file in this folder")
    return to_annotations([_video(file) for file in files])


def _video(path: Path) -> LabelledVideo:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\x00" in content:
        # ELAN writes UTF-8 without declarations; with them come entities that expand to gigabytes.
        raise UserError(
            f"{path}: holds a document type declaration or is not UTF-8, as ELAN's files are; refused"
        )
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not valid XML ({error})") from None
    if root.tag != "ANNOTATION_DOCUMENT":
        raise UserError(f"{path}: not an ELAN document (its root is {root.tag!r})")
    try:
        return LabelledVideo(_video_id(path, root), tuple(_intervals(root)))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: a broken ELAN document ({type(error).__name__}: {error})") from None


def _intervals(root: ElementTree.Element) -> list[Interval]:
    times = {s.attrib["TIME_SLOT_ID"]: s.get("TIME_VALUE") for s in root.iterfind("TIME_ORDER/TIME_SLOT")}
    found = []
    for annotation in root.iterfind("TIER/ANNOTATION/ALIGNABLE_ANNOTATION"):
        start, end = (times[annotation.attrib[f"TIME_SLOT_REF{k}"]] for k in (1, 2))
        label = annotation.findtext("ANNOTATION_VALUE") or ""
        if start is None or end is None or not label:
            # A slot without time or an empty annotation: made in ELAN, not filled in yet.
            continue
        found.append(Interval(int(start) / 1000, int(end) / 1000, label))
    return found


def _video_id(path: Path, root: ElementTree.Element) -> str:
    for item in root.iterfind("HEADER/PROPERTY"):
        if item.get("NAME") == ID_PROPERTY and item.text:
            return item.text
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    url = media.get("MEDIA_URL") if media is not None else None
    return id_of_media(url or path.stem)

"""ELAN, one `.eaf` a video: a tier a class (ELAN's tiers hold no overlaps, so a class may need several).

Times are whole milliseconds. Scores lie on tiers of their own, each bound to its class's tier.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write, read_bytes
from wtal.datasets.annotations import AnnotationSet
from wtal.datasets.interchange.labelled import Interval, LabelledVideo, id_of_media, to_annotations
from wtal.datasets.interchange.names import file_names
from wtal.datasets.interchange.xml import attribute, text

ID_PROPERTY = "wtal:video_id"
"""Header property that carries the video's id; ELAN keeps properties that it does not know."""


def export(videos: Sequence[LabelledVideo], out: Path) -> list[Path]:
    """Write one file a video."""
    names = file_names(video.video_id for video in videos)
    paths = []
    for video in videos:
        path = out / f"{names[video.video_id]}.eaf"
        with atomic_write(path, "w") as stream:
            stream.write(document(video))
        paths.append(path)
    return paths


def document(video: LabelledVideo) -> str:
    """The annotation document, format 3.0."""
    slots: list[str] = []
    tiers: list[str] = []
    count = 0
    for number, (label, intervals) in enumerate(tiers_of(video.intervals)):
        times, scores = [], []
        for i in intervals:
            start, end = milliseconds(i)
            slots += [str(start), str(end)]
            count += 1
            times.append(
                f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{count}" '
                f'TIME_SLOT_REF1="ts{len(slots) - 1}" TIME_SLOT_REF2="ts{len(slots)}">'
                f"<ANNOTATION_VALUE>{text(i.label)}</ANNOTATION_VALUE>"
                "</ALIGNABLE_ANNOTATION></ANNOTATION>"
            )
            if i.score is not None:
                scores.append((f"a{count}", repr(float(i.score))))
        name = f"{number + 1}: {label[:60]}"
        tiers.append(_tier(name, "interval", "", times))
        if scores:
            references = []
            for reference, value in scores:
                count += 1
                references.append(
                    f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a{count}" ANNOTATION_REF="{reference}">'
                    f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>"
                )
            tiers.append(_tier(f"{number + 1}: score", "score", f" PARENT_REF={attribute(name)}", references))
    media = ""
    if video.source is not None:
        url = video.source.absolute().as_uri()
        media = f'<MEDIA_DESCRIPTOR MEDIA_URL={attribute(url)} MIME_TYPE="video/mp4"/>'
    order = "".join(f'<TIME_SLOT TIME_SLOT_ID="ts{k}" TIME_VALUE="{value}"/>\n' for k, value in enumerate(slots, 1))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ANNOTATION_DOCUMENT AUTHOR="wtal" DATE="1970-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">\n'
        f'<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">{media}'
        f'<PROPERTY NAME="{ID_PROPERTY}">{text(video.video_id)}</PROPERTY></HEADER>\n'
        f"<TIME_ORDER>\n{order}</TIME_ORDER>\n{''.join(tiers)}"
        '<LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="interval" TIME_ALIGNABLE="true"/>\n'
        '<LINGUISTIC_TYPE CONSTRAINTS="Symbolic_Association" GRAPHIC_REFERENCES="false" '
        'LINGUISTIC_TYPE_ID="score" TIME_ALIGNABLE="false"/>\n'
        '<CONSTRAINT DESCRIPTION="1-1 with the parent annotation" STEREOTYPE="Symbolic_Association"/>\n'
        "</ANNOTATION_DOCUMENT>\n"
    )


def tiers_of(intervals: Sequence[Interval]) -> list[tuple[str, list[Interval]]]:
    """(class, intervals without overlap in order of time); an overlap opens another tier of the class."""
    tiers: dict[str, list[list[Interval]]] = {}
    for i in sorted(intervals, key=lambda i: (i.label, i.start, i.end)):
        start, _ = milliseconds(i)
        of_class = tiers.setdefault(i.label, [])
        free = next((tier for tier in of_class if milliseconds(tier[-1])[1] <= start), None)
        if free is None:
            of_class.append([i])
        else:
            free.append(i)
    return [(label, tier) for label, of_class in tiers.items() for tier in of_class]


def milliseconds(interval: Interval) -> tuple[int, int]:
    """Start and end; ELAN wants at least one millisecond between them."""
    start = round(interval.start * 1000)
    return start, max(start + 1, round(interval.end * 1000))


def _tier(name: str, kind: str, more: str, annotations: Sequence[str]) -> str:
    body = "\n".join(annotations)
    return f'<TIER LINGUISTIC_TYPE_REF="{kind}" TIER_ID={attribute(name)}{more}>\n{body}\n</TIER>\n'


def read(path: Path) -> AnnotationSet:
    """One file or all `.eaf` files of a folder. Raises `UserError` naming the file."""
    files = sorted(path.glob("*.eaf")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .eaf file in this folder")
    return to_annotations([_video(file) for file in files])


def _video(path: Path) -> LabelledVideo:
    content = read_bytes(path)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\x00" in content:
        # ELAN writes UTF-8 without declarations; with them come entities that expand to gigabytes.
        raise UserError(f"{path}: holds a document type declaration or is not UTF-8, as ELAN's files are; refused")
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

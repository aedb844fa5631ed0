"""The user's table of labels: what it says of each video, and which file each of its names means.

Legend: nothing here is an array.
"""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import read_text
from feature_extraction.store.ids import IdFinder, plain_id
from feature_extraction.video.listing import VideoFile
from wtal.datasets.annotations import AnnotationSet
from wtal.datasets.formats.csv_table import read_table
from wtal.datasets.formats.weak_labels import VIDEO_COLUMNS, read_csv, read_jsonl, video_name

SUBSETS = {
    # what a table may call a subset, in any letter case: what it becomes
    "training": "training",
    "train": "training",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "testing": "validation",
    "test": "validation",
}
NOTHING = ("normal", "nothing", "none", "no", "background", "negative", "other", "neutral", "no action", "no event")
"""Labels, in any letter case, that read like the absence of an action."""


@dataclass(frozen=True)
class LabelTable:
    """What the table says, by the names that it calls videos."""

    labels: AnnotationSet
    groups: Mapping[str, str]
    """Group of each video that has one."""
    notes: tuple[str, ...]
    """What looks like a slip in it."""


def read_label_table(path: Path, negative: Sequence[str] = ()) -> LabelTable:
    """Read CSV, TSV or JSON lines. A video whose label is empty, or one of the labels `negative`, is a negative: none
    of the classes happens in it.

    Raises `UserError` for a subset that is none of `SUBSETS`, for a label in `negative` that no video has, for a video
    that is labelled with a class and as a negative, and for what the readers refuse.
    """
    lines = path.suffix.lower() in (".jsonl", ".json", ".ndjson")
    read = read_jsonl if lines else read_csv
    table = with_known_subsets(read(path, default_subset="", empty_is_negative=True), path)
    table = without_negatives(table, negative, path)
    return LabelTable(table, read_groups(path, lines), tuple(_label_notes(table)))


def with_known_subsets(table: AnnotationSet, labels: Path) -> AnnotationSet:
    """The table with the names of `SUBSETS` made "training" and "validation"; "" stays. Raises `UserError` for
    any other name."""
    videos = {}
    for video_id, video in table.videos.items():
        subset = SUBSETS.get(video.subset.lower(), "")
        if video.subset and not subset:
            raise UserError(
                f"{labels}: video {video_id!r} is in subset {video.subset!r}; `wtal init` knows {', '.join(SUBSETS)}"
            )
        videos[video_id] = dataclasses.replace(video, subset=subset)
    return AnnotationSet(table.classes, videos)


def without_negatives(table: AnnotationSet, negative: Sequence[str], path: Path) -> AnnotationSet:
    """The table without the labels `negative`, whose videos become negatives."""
    for name in negative:
        if name not in table.classes:
            raise UserError(f"--negative {name!r} is no label in {path}; it has: {', '.join(table.classes)}")
    videos = {}
    for video_id, video in table.videos.items():
        own = tuple(label for label in video.labels if label not in negative)
        if own and len(own) < len(video.labels):
            raise UserError(
                f"{path}: video {video_id!r} is labelled {own[0]!r} and, as a negative, "
                f"{next(label for label in video.labels if label in negative)!r}; it cannot be both"
            )
        if len(own) < len(video.labels):
            instances = tuple(i for i in video.instances if i.label not in negative)
            video = dataclasses.replace(video, labels=own, instances=instances, negative=True)
        videos[video_id] = video
    return AnnotationSet(tuple(name for name in table.classes if name not in negative), videos)


def read_groups(path: Path, lines: bool) -> dict[str, str]:
    """Group of each video by its name in the table, from the column (or key) `group`. Raises `UserError` for a video in
    two groups."""
    rows: Iterable[tuple[int, Mapping[str, object]]]
    if lines:
        rows = [(n, json.loads(text)) for n, text in enumerate(read_text(path).split("\n"), 1) if text.strip()]
    else:
        rows = read_table(path, {"of videos": VIDEO_COLUMNS})
    groups: dict[str, str] = {}
    for line, row in rows:
        group = str(row.get("group") or "").strip()
        if not group:
            continue
        name = video_name(str(next(row[key] for key in VIDEO_COLUMNS if key in row)))
        if groups.setdefault(name, group) != group:
            raise UserError(
                f"{path}, line {line}: video {name!r} is in groups {groups[name]!r} and {group!r}; choose one"
            )
    return groups


def _label_notes(table: AnnotationSet) -> Iterable[str]:
    counts = Counter(label for video in table.videos.values() for label in video.labels)
    alike: dict[str, list[str]] = {}
    for name in table.classes:
        alike.setdefault(" ".join(name.replace("_", " ").casefold().split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            said = ", ".join(f"{name!r} ({counts[name]} videos)" for name in names)
            yield f"labels that differ in letter case or blanks only are classes of their own: {said}; write them alike"
    for name in table.classes:
        if name.casefold() in NOTHING or name.casefold().startswith(("no ", "no_", "non", "not ")):
            yield (
                f"label {name!r} reads like the absence of an action, and is learnt like one: `--negative {name!r}` "
                f"makes its {counts[name]} videos negatives"
            )


def match_videos(wanted: Iterable[str], files: Sequence[VideoFile], folder: Path, source: Path) -> dict[str, str]:
    """Name in the table -> id of the video, in the form for people. Raises `UserError` naming and counting what is not
    there."""
    found, missing = match(wanted, files, folder, source)
    if missing:
        raise UserError(f"{source}: {len(missing)} videos are not in {folder}: {some(missing)}; correct the table")
    return found


def match(
    wanted: Iterable[str], files: Sequence[VideoFile], folder: Path, source: Path
) -> tuple[dict[str, str], list[str]]:
    """Name -> id of the video that it means, in the form for people, and the names that mean none or several.

    A name is a path below the folder, with or without the folder's own name before it, an absolute path, a
    path from here, or the end of a path (the file's name alone,
    say) where only one video ends so. Raises `UserError` where two names mean one video.
    """
    finder = IdFinder(file.id for file in files)
    top = Path(os.path.abspath(folder)).as_posix()
    by_path = {_bare(file.path): file.id for file in files} | {f"{top}/{plain_id(f.id)}": f.id for f in files}
    found: dict[str, str] = {}
    missing = []
    for name in wanted:
        candidates = finder.candidates(name) or finder.candidates(_without_folder(name, top))
        if os.path.isabs(name) or not candidates:
            at = by_path.get(_bare(Path(os.path.abspath(name)))) or by_path.get(_bare(Path(name).resolve()))
            candidates = [at] if at else [] if os.path.isabs(name) else candidates
        if len(candidates) != 1:
            missing.append(f"{name} (several are called so)" if candidates else name)
            continue
        video_id = plain_id(candidates[0])
        if video_id in found.values() or name in found:
            raise UserError(f"{source}: {name!r} and another row name the same video; use one name for it")
        found[name] = video_id
    return found, missing


def _without_folder(name: str, top: str) -> str:
    """`name` less what of it is the end of the folder's own path: `videos/a.mp4` in `.../videos` is `a.mp4`."""
    parts = name.replace("\\", "/").split("/")
    for start in range(len(parts) - 1, 0, -1):
        if f"{top}/".endswith(f"/{'/'.join(parts[:start])}/"):
            return "/".join(parts[start:])
    return name


def _bare(path: Path) -> str:
    return video_name(path.as_posix())


def some(names: Sequence[str], between: str = ", ") -> str:
    """The first five, and dots."""
    return between.join(names[:5]) + (f"{between}..." if len(names) > 5 else "")

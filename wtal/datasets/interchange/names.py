"""File names and links for data that may hold anything: hostile ids, long ids, ids that differ in letter
case only."""

import dataclasses
import hashlib
import os
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import read_json
from feature_extraction.store.ids import IdFinder, plain_id
from feature_extraction.store.stream import open_streams
from feature_extraction.video.listing import list_videos
from wtal.datasets.annotations import AnnotationSet


def file_names(video_ids: Iterable[str]) -> dict[str, str]:
    """A file name (no suffix) for each id: the id itself where that is plain, else a cleaned one with a hash.

    Safe on every file system: at most 90 ASCII letters, digits, `_`, `-`, `.`; never empty, hidden or
    reserved; no two equal when letter case is ignored. The same ids give the same names.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for video_id in sorted(video_ids):
        clean = re.sub(r"[^A-Za-z0-9_.-]+", "_", video_id)[:80].strip("._-") or "video"
        reserved = re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", clean)
        if clean != video_id or reserved or clean.lower() in taken:
            clean += "-" + hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        while clean.lower() in taken:
            clean += "_"
        taken.add(clean.lower())
        names[video_id] = clean
    return names


def link(target: Path, folder: Path) -> str:
    """URL of the file `target` for a page in `folder`: relative where a relative path exists, else
    `file:`."""
    target, folder = Path(os.path.abspath(target)), Path(os.path.abspath(folder))
    try:
        relative = os.path.relpath(target, folder)
    except ValueError:  # another drive
        return target.as_uri()
    return urllib.parse.quote(os.fsencode(relative.replace(os.sep, "/")))


def known_ids(place: Path) -> list[str]:
    """Ids of the videos of a folder of videos, a feature store, or a file of annotations or predictions (ActivityNet
    JSON), in the form for people. Raises `UserError` for anything else."""
    if place.is_dir() and any(place.glob("*/stream.json")):
        return sorted({plain_id(video_id) for stream in open_streams(place).values() for video_id in stream.ids()})
    if place.suffix.lower() != ".json":
        return [plain_id(file.id) for file in list_videos(place)]
    content = read_json(place)
    for key in ("database", "results"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            return [plain_id(video_id) for video_id in content[key]]
    raise UserError(f"{place}: neither predictions ('results') nor annotations ('database') in ActivityNet JSON")


def with_known_ids(annotations: AnnotationSet, known: Iterable[str]) -> tuple[AnnotationSet, list[str]]:
    """The annotations by those of the ids `known` that they mean, and the names of videos that mean none or several.

    As `IdFinder`, and a path that ends in an id (a tool may count from another root), and the name of an upload to
    Label Studio (eight signs before it, blanks and brackets lost). Raises `UserError` where two mean one video.
    """
    finder = IdFinder(known := list(known))
    uploads: dict[str, list[str]] = {}
    for video_id in known:
        uploads.setdefault(_as_uploaded(video_id.rsplit("/", 1)[-1]), []).append(video_id)
    found: dict[str, str] = {}
    lost = []
    for name in annotations.videos:
        candidates = finder.candidates(name) or finder.candidates("/" + name)
        bare = re.sub(r"^[0-9a-f]{8}-", "", name)
        candidates = candidates or finder.candidates(bare) or uploads.get(_as_uploaded(bare), [])
        if len(candidates) == 1:
            found[name] = candidates[0]
        else:
            lost.append(f"{name} ({' or '.join(candidates[:3])})" if candidates else name)
    twice = [name for name, video_id in found.items() if list(found.values()).count(video_id) > 1]
    if twice:
        raise UserError(f"{twice[0]!r} and {twice[1]!r} both mean the video {found[twice[0]]!r}; leave one out")
    videos = {
        found[name]: dataclasses.replace(video, video_id=found[name])
        for name, video in annotations.videos.items()
        if name in found
    }
    return AnnotationSet(annotations.classes, videos), lost


def _as_uploaded(name: str) -> str:
    """A file's name as Label Studio's storage (Django's) keeps it: blanks to underscores, other signs gone."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))

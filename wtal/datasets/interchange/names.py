"""File names and links for data that may hold anything: hostile ids, long ids, ids that differ in letter
case only."""

import hashlib
import os
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path


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

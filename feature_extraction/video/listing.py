"""Which videos a command means: files, or folders searched for names that look like videos."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.store.stream import video_ids
from feature_extraction.video.read import SUFFIXES


@dataclass(frozen=True)
class VideoFile:
    """A video to extract."""

    id: str
    path: Path


def list_videos(places: Path | str | Sequence[Path | str]) -> list[VideoFile]:
    """Videos of a folder (searched through, links too), of a file, or of several; in order of their ids.

    Ids are relative to the folder given. Hidden files and other kinds of files are passed over; a file named
    itself is taken whatever its name. Raises `UserError` where nothing is found, or where ids clash.
    """
    if isinstance(places, (str, Path)):
        places = [places]
    found: dict[str, Path] = {}
    for place in map(Path, places):
        for video_id, path in _of(place).items():
            if found.setdefault(video_id, path) != path:
                raise UserError(
                    f"{found[video_id]} and {path} would both have the id {video_id!r}; "
                    "put them under one folder and give that, or use two stores"
                )
    if not found:
        raise UserError(f"no videos given ({', '.join(map(str, places)) or 'an empty list'})")
    return [VideoFile(video_id, path) for video_id, path in sorted(found.items())]


def _of(place: Path) -> dict[str, Path]:
    if place.is_dir():
        files = [
            Path(folder, name)
            for folder, names in _folders(place)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
        if not files:
            raise UserError(
                f"{place}: no videos in this folder (looked for {', '.join(sorted(SUFFIXES))}, in subfolders too)"
            )
        relative = {path.relative_to(place).as_posix(): path for path in files}
        return {video_id: _real(relative[name]) for video_id, name in video_ids(relative).items()}
    if place.exists() or place.is_symlink():
        return {video_id: _real(place) for video_id in video_ids([place.name])}
    raise UserError(f"{place}: no such file or folder; give a folder of videos")


def _real(path: Path) -> Path:
    """The path without links. `Path.resolve` raises where links go round; here such a file stays, and fails later as
    one that cannot be read, so that the others are done."""
    return Path(os.path.realpath(path))


def _folders(place: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders below `place` with their files' names, each once; hidden ones are left out.

    Links to folders come after all that is reached without them, so that a link gives no second name to what
    has one; a link to a folder above is not followed.
    """
    seen, links = set(), [str(place)]
    while links:
        start = links.pop(0)
        if start != str(place) and _real(place).is_relative_to(_real(Path(start))):
            continue
        for folder, subfolders, names in os.walk(start):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            shown = sorted(name for name in subfolders if not name.startswith("."))
            linked = [name for name in shown if os.path.islink(os.path.join(folder, name))]
            links += [os.path.join(folder, name) for name in linked]
            subfolders[:] = [name for name in shown if name not in linked]
            yield folder, names

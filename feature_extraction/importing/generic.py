"""Features of any network and any width: files found by patterns, one or several streams.

    NAME=GLOB[:KEY]     videomae=mae/**/*.npy      panns=audio.h5:*      siglip=*_siglip.npz:embedding

Each `*` (and `**/`) of the pattern, in the path and in the key, is a part of the video's id; the rest is fixed. KEY
names an array of an npz or HDF5 file; with a `*` in it one file holds many videos. A file of one array needs none.

Shape suffixes: S source vectors over time, D features.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.importing.layouts import Video, matrix_of, read_matrix

MOST_HDF5_DEPTH = 8  # groups within groups that are searched for arrays


@dataclass(frozen=True)
class StreamPattern:
    """Where one stream's arrays are, below the source."""

    name: str
    glob: str
    key: str | None


def parse_pattern(text: str) -> StreamPattern:
    """`NAME=GLOB[:KEY]`. Raises `UserError` for another form."""
    name, equals, place = text.partition("=")
    glob, colon, key = place.partition(":")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_]+", name) or not glob or (colon and not key):
        raise UserError(
            f"--stream {text!r}: expected NAME=GLOB or NAME=GLOB:KEY, the name of letters, digits and underscores; for "
            "example videomae=mae/*.npy, or panns=audio.h5:*"
        )
    if glob.startswith(("/", "~")) or ".." in glob.split("/"):
        raise UserError(f"--stream {text!r}: the pattern is below SOURCE; give a relative one")
    return StreamPattern(name, glob, key or None)


def read_generic(kind: str, source: Path, patterns: Sequence[StreamPattern]) -> Iterator[Video]:
    """Videos of a folder of `npy`, `npz` or `hdf5` files, one in memory at a time. A video that a stream lacks, or has
    twice, is one with a problem. Raises `UserError` for a pattern that finds nothing."""
    if not patterns:
        raise UserError(f"--from {kind} needs at least one --stream NAME=GLOB[:KEY]")
    names = [pattern.name for pattern in patterns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--stream names {twice!r} twice; a stream has one pattern")
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    found: dict[str, dict[str, list[Place]]] = {}
    for pattern in patterns:
        places = list(FINDERS[kind](source, pattern))
        if not places:
            key = f" with an array {pattern.key!r}" if pattern.key else ""
            raise UserError(f"--stream {pattern.name}: nothing in {source} is called {pattern.glob!r}{key}")
        for video_id, place in places:
            found.setdefault(video_id, {}).setdefault(pattern.name, []).append(place)
    for video_id, by_stream in sorted(found.items()):
        first = next(iter(by_stream.values()))[0]
        lacking = [name for name in names if name not in by_stream]
        double = [places for places in by_stream.values() if len(places) > 1]
        if double:
            yield Video(video_id, first.file, problem=f"is there twice: {double[0][0]}, {double[0][1]}")
        elif lacking:
            yield Video(video_id, first.file, problem=f"{first}: has no {lacking[0]} beside it")
        else:
            yield _video(video_id, first.file, {name: by_stream[name][0] for name in names})


@dataclass(frozen=True)
class Place:
    """One array: a file and, in an npz or HDF5 file, a key."""

    file: Path
    read: Callable[[], np.ndarray]
    key: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.key}" if self.key else str(self.file)


def _video(video_id: str, file: Path, places: dict[str, Place]) -> Video:
    try:
        return Video(video_id, file, {name: place.read() for name, place in places.items()})
    except UserError as error:
        return Video(video_id, file, problem=str(error))


def wildcard(pattern: str) -> re.Pattern[str]:
    """A pattern of path parts as an expression whose groups are its wildcards: `**/` any folders, `*` no slash."""
    parts = re.split(r"(\*\*/|\*)", pattern)
    known = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts) + r"\Z")


def video_id_of(matches: Sequence[re.Match[str]]) -> str:
    """The wildcards of a path, and of a key, joined by slashes."""
    parts = [group.strip("/") for match in matches for group in match.groups()]
    return "/".join(part for part in parts if part)


def _files(source: Path, pattern: StreamPattern) -> Iterator[tuple[Path, re.Match[str]]]:
    form = wildcard(pattern.glob)
    for path in sorted(source.rglob("*") if "/" in pattern.glob or "**" in pattern.glob else source.glob("*")):
        match = form.match(path.relative_to(source).as_posix())
        if match and path.is_file() and not path.name.startswith("."):
            yield path, match


def find_npy(source: Path, pattern: StreamPattern) -> Iterator[tuple[str, Place]]:
    """Files of one array each."""
    if pattern.key:
        raise UserError(f"--stream {pattern.name}: an npy file holds one array; leave out ':{pattern.key}'")
    for path, match in _files(source, pattern):
        yield video_id_of([match]) or path.stem, Place(path, lambda path=path: read_matrix(path))


def find_npz(source: Path, pattern: StreamPattern) -> Iterator[tuple[str, Place]]:
    """Arrays of npz archives."""
    for path, match in _files(source, pattern):
        with _problems(path, "npz archive"), zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        for video_id, key in _chosen(path, match, pattern, keys):
            yield video_id, Place(path, lambda path=path, key=key: _npz_array(path, key), key)


def _npz_array(path: Path, key: str) -> np.ndarray:
    with _problems(path, "npz archive"), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return matrix_of(archive[key], f"{path}:{key}")


def find_hdf5(source: Path, pattern: StreamPattern) -> Iterator[tuple[str, Place]]:
    """Data sets of HDF5 files, by their paths inside."""
    h5py = _h5py()
    for path, match in _files(source, pattern):
        with _problems(path, "HDF5 file"), h5py.File(path, "r") as file:
            keys = list(_datasets(h5py, file))
        for video_id, key in _chosen(path, match, pattern, keys):
            yield video_id, Place(path, lambda path=path, key=key: _hdf5_array(path, key), key)


def _hdf5_array(path: Path, key: str) -> np.ndarray:
    with _problems(path, "HDF5 file"), _h5py().File(path, "r") as file:
        return matrix_of(file[key][()], f"{path}:{key}")


def _datasets(h5py: Any, group: Any, above: str = "", depth: int = 0) -> Iterator[str]:
    """Paths of the data sets of numbers in a file. Links to other files are not followed."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and not item.external:
            yield f"{above}{name}"
        elif isinstance(item, h5py.Group) and depth < MOST_HDF5_DEPTH:
            yield from _datasets(h5py, item, f"{above}{name}/", depth + 1)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError("--from hdf5 needs h5py, which is not installed: pip install 'wtal[hdf5]'") from None
    return h5py


def _chosen(path: Path, match: re.Match[str], pattern: StreamPattern, keys: list[str]) -> Iterator[tuple[str, str]]:
    """(video id, key) of those of a file's arrays that the pattern means. Raises `UserError` where it is not clear."""
    if pattern.key is None:
        if len(keys) != 1:
            raise UserError(
                f"{path}: it holds {len(keys)} arrays ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}); say "
                f"which with --stream {pattern.name}={pattern.glob}:KEY, or ':*' where each is a video"
            )
        yield video_id_of([match]) or path.stem, keys[0]
        return
    form = wildcard(pattern.key.strip("/"))
    for key in keys:
        if inside := form.match(key):
            yield video_id_of([match, inside]) or path.stem, key


@contextmanager
def _problems(path: Path, what: str) -> Iterator[None]:
    """Whatever a damaged file makes a library raise, as one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path}: not a readable {what} ({reason})") from None


FINDERS: dict[str, Callable[[Path, StreamPattern], Iterator[tuple[str, Place]]]] = {
    "npy": find_npy,
    "npz": find_npz,
    "hdf5": find_hdf5,
}

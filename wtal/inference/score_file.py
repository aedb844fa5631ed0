"""The scores of one row in one file: appended video by video, read a video at a time.

    scores/<row>/scores.f32   float32, little endian, the numbers of one video after those of another
    scores/<row>/index.json   what made them (weights, score rule, feature streams), and of each video where its numbers
                              stand, its length, its time grid and the hash of its numbers; sealed

What the index names is on disk: numbers are written and flushed first. After a kill the file is longer than the index
knows; the rest is cut off and written again. A video is read into memory of its own, not mapped: mapped pages count as
the process's, and a file cut short would end it.

Legend: T snippets, C classes, P places of a map.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write, naming, read_json, refuse_links
from feature_extraction.seal import sealed
from feature_extraction.store.grid import TimeGrid
from wtal.inference.scores import OPTIONAL, VideoScores

INDEX, NUMBERS = "index.json", "scores.f32"
SAVE_SECONDS = 5.0
"""Time between two writings of the index: what a kill costs at most."""
PARTS = ("video_C", "frame_TC", *OPTIONAL)


class ScoreFile:
    """Scores of the videos of one row, in a folder of two files, which need not be there yet."""

    def __init__(self, folder: Path, read: bool = True) -> None:
        """Without `read` nothing is known of what is there, to write it anew.

        Raises `UserError` for an index that is damaged or none, and for a folder of an earlier version.
        """
        self.folder = Path(folder)
        self.made: dict[str, Any] = {}
        """What the scores follow from; empty where there are none."""
        self._classes, self._videos = 0, dict[str, list[Any]]()
        self._whole: set[str] = set()  # whose numbers were found to be what was written
        if read:
            self._read_index()

    def _read_index(self) -> None:
        if not (self.folder / INDEX).is_file():
            if any(self.folder.glob("*.npz")):
                raise UserError(
                    f"{self.folder}: scores of an earlier version, a file a video; run `wtal predict` again, which "
                    "makes them anew"
                )
            return
        content = read_json(self.folder / INDEX)
        try:
            self.made, self._classes = dict(content["made"]), content["classes"]
            self._videos = dict(content["videos"])
            if not _is_size(self._classes):
                raise ValueError
            for start, length, places, parts, fps, window, stride, duration, digest in self._videos.values():
                numbers = all(map(_is_size, (start, length, places, window, stride))) and math.isfinite(duration)
                named = {"video_C", "frame_TC"} <= set(parts.split()) <= set(PARTS) and isinstance(digest, str)
                if not (numbers and named and length >= 1 and TimeGrid(fps, window, stride)):
                    raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UserError):
            raise UserError(
                f"{self.folder / INDEX}: not the index of scores; remove {self.folder} and run `wtal predict` again"
            ) from None

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._videos

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, video_id: str) -> VideoScores:
        """Scores of a video. Raises `UserError` where there are none or where they are damaged; the first time, its
        numbers are compared with their hash (0.7 ms a megabyte)."""
        start, length, places, parts, fps, window, stride, duration, digest = self._entry(video_id)
        shapes = self._shapes(length, places, parts)
        numbers = self._numbers(video_id, start, _bytes_of(shapes), digest)
        arrays, place = {}, 0
        for name, shape in shapes.items():
            arrays[name] = numbers[place : place + math.prod(shape)].reshape(shape)
            place += math.prod(shape)
        # a copy: who keeps the few numbers of a video shall not keep them all
        video_C = arrays.pop("video_C").copy()
        return VideoScores(video_C=video_C, grid=TimeGrid(fps, window, stride), duration=float(duration), **arrays)

    def _entry(self, video_id: str) -> list[Any]:
        if video_id not in self._videos:
            raise UserError(f"{self.folder}: no scores of video {video_id!r}; run `wtal predict` first")
        return self._videos[video_id]

    def _shapes(self, length: int, places: int, parts: str) -> dict[str, tuple[int, ...]]:
        of = {"T": length, "C": self._classes, "P": places}
        return {name: tuple(of[axis] for axis in name.rpartition("_")[2]) for name in parts.split()}

    def _numbers(self, video_id: str, start: int, size: int, digest: str) -> np.ndarray:
        path = self.folder / NUMBERS
        try:
            with open(path, "rb", buffering=0) as stream:
                if os.fstat(stream.fileno()).st_size < start + size:
                    raise ValueError("cut short")
                held = bytearray(size)
                stream.seek(start)
                stream.readinto(held)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}; remove {self.folder} and run `wtal predict` again") from None
        if video_id not in self._whole:
            if hashlib.sha256(held).hexdigest() != digest:
                raise UserError(
                    f"{path}: damaged (the scores of video {video_id!r} are not what was written); remove "
                    f"{self.folder} and run `wtal predict` again"
                )
            self._whole.add(video_id)
        return np.frombuffer(held, dtype="<f4")

    def fingerprint(self, ids: Iterable[str]) -> str:
        """One hash of what made the scores of these videos and of the scores, which are compared with theirs.

        Raises `UserError` as reading each of them does.
        """
        digest = hashlib.sha256(json.dumps([self.made, self._classes], sort_keys=True).encode())
        for video_id in ids:
            start, *shape, hash_of_numbers = self._entry(video_id)
            if video_id not in self._whole:
                self._numbers(video_id, start, _bytes_of(self._shapes(*shape[:3])), hash_of_numbers)
            digest.update(json.dumps([video_id, *shape, hash_of_numbers]).encode())
        return digest.hexdigest()

    def fits(self, made: Mapping[str, Any]) -> bool:
        """Whether what is there was made from this, and is all there."""
        return self.made == made and self._end <= _size(self.folder / NUMBERS)

    @property
    def _end(self) -> int:
        """Bytes of what the index names."""
        videos = self._videos.values()
        return max(
            (start + _bytes_of(self._shapes(*shape)) for start, *shape in (own[:4] for own in videos)), default=0
        )

    def extend(self, made: Mapping[str, Any], scored: Iterable[tuple[str, VideoScores]]) -> None:
        """Write the scores of more videos, which were made from `made`; those made from anything else go.

        Raises `UserError` for scores that are not finite, and where another process writes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        refuse_links(self.folder.parent, f"{self.folder.name}/{NUMBERS}")
        with _alone(self.folder):
            with contextlib.suppress(UserError):  # damaged: as good as none
                self._read_index()  # what another process has written since
            if not self.fits(made):
                self._clear(made)
            with naming(self.folder / NUMBERS), open(self.folder / NUMBERS, "ab") as stream:
                stream.seek(stream.truncate(self._end))
                saved = time.monotonic()
                for video_id, scores in scored:
                    self._append(stream, video_id, scores)
                    if time.monotonic() - saved > SAVE_SECONDS:
                        self._save(stream)
                        saved = time.monotonic()
                self._save(stream)

    def _clear(self, made: Mapping[str, Any]) -> None:
        """An index of nothing goes first: after a kill the old numbers are nobody's. Who reads them keeps them."""
        self.made, self._videos, self._whole = dict(made), {}, set()
        self._write_index()
        (self.folder / NUMBERS).unlink(missing_ok=True)
        for old in (*self.folder.glob("*.npz"), self.folder.with_name(f"{self.folder.name}.json")):
            old.unlink(missing_ok=True)

    def _append(self, stream: IO[bytes], video_id: str, scores: VideoScores) -> None:
        arrays = {name: getattr(scores, name) for name in PARTS if getattr(scores, name) is not None}
        if not len(scores.frame_TC) or not all(np.isfinite(array).all() for array in arrays.values()):
            raise UserError(
                f"{self.folder}: the scores of video {video_id!r} are not finite, or there are none; the network "
                "diverged or the features are broken"
            )
        if self._videos and len(scores.video_C) != self._classes:
            raise ValueError(f"scores of {len(scores.video_C)} classes among those of {self._classes}")
        self._classes = len(scores.video_C)
        content = b"".join(np.ascontiguousarray(array, dtype="<f4").tobytes() for array in arrays.values())
        grid, start = scores.grid, stream.tell()
        stream.write(content)
        digest = hashlib.sha256(content).hexdigest()
        sizes = len(scores.frame_TC), 0 if scores.map_TP is None else scores.map_TP.shape[1]
        time = grid.fps, grid.window, grid.stride, scores.duration
        self._videos[video_id] = [start, *sizes, " ".join(arrays), *time, digest]

    def _save(self, stream: IO[bytes]) -> None:
        stream.flush()
        os.fsync(stream.fileno())
        self._write_index()

    def _write_index(self) -> None:
        content = sealed({"made": self.made, "classes": self._classes, "videos": self._videos})
        with atomic_write(self.folder / INDEX, "w") as stream:
            stream.write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 40


def _bytes_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return 4 * sum(map(math.prod, shapes.values()))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time; on file systems without locks as many as there are."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process writes these scores; wait for it") from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EBADF):
                raise
        yield
    finally:
        os.close(handle)

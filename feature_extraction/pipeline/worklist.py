"""Which videos are to be done, in the store already, or in other workers' hands; and what came of them."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.files import read_json
from feature_extraction.pipeline.assembly import Assembly
from feature_extraction.pipeline.progress import Progress
from feature_extraction.store.claims import Claims
from feature_extraction.store.failures import FailureLog
from feature_extraction.store.stream import Stream, printable
from feature_extraction.video.listing import VideoFile


@dataclass
class ExtractionSummary:
    """What a call of `extract` did."""

    streams: dict[str, Path]
    """Folder of each stream."""
    done: list[str] = field(default_factory=list)
    """Ids extracted now, in the order in which they were finished."""
    present: list[str] = field(default_factory=list)
    """Ids that were in the store already, or that other workers put there meanwhile."""
    failed: dict[str, str] = field(default_factory=dict)
    """Id -> why it failed."""
    frames: int = 0
    """Frames of the time grid that went through."""
    seconds: float = 0.0
    """Wall-clock time."""
    elsewhere: int = 0
    """Videos of the other shards, or not asked for."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Id in the store -> the id that its video has now, after another file of its name came beside it."""


class Job:
    """A claimed video and what the stages know of it; each stage touches its own fields only."""

    def __init__(self, file: VideoFile, missing: list[str]) -> None:
        self.file, self.missing = file, missing
        self.gray_1HW: np.ndarray | None = None  # flow stage: the last frame seen
        self.flow_1HW2: np.ndarray | None = None  # flow stage: the last flow made
        self.assembly: Assembly | None = None  # network stage
        self.failed = False  # network stage
        self.promised = 0  # grid frames that the header promises


class Work:
    """The list of videos, handed out to decoding threads."""

    def __init__(
        self,
        files: list[VideoFile],
        streams: dict[str, Stream],
        claims: Claims,
        failures: FailureLog,
        summary: ExtractionSummary,
        bar: Progress,
        accept_truncated: bool,
    ) -> None:
        self.accept_truncated = accept_truncated
        self.todo = deque(files)
        self.held: list[VideoFile] = []
        self.streams, self.claims, self.failures = streams, claims, failures
        self.summary, self.bar = summary, bar
        self._lock = threading.Lock()
        self._began = time.time()
        self._leftovers = [
            path for stream in streams.values() for path in stream.folder.glob(".*.part")
        ]  # of writers that were killed

    def missing(self, file: VideoFile) -> list[str]:
        """The streams that lack a video, or hold it of another source, or less of it than is asked for."""
        return [
            name for name, stream in self.streams.items() if not stream.holds(file.id, file.path, self.accept_truncated)
        ]

    def drop_outdated(self, job: Job) -> str:
        """After a failure: remove what an earlier content of the file left, which would pass for the video's.

        Returns what is to be told of it.
        """
        outdated, kept = [], []
        for name in job.missing:
            stream = self.streams[name]
            if job.file.id not in stream:
                continue
            if stream.is_of_another(job.file.id, job.file.path):
                stream.discard(job.file.id)
                outdated.append(name)
            else:
                kept.append(name)
        return "".join(
            f"; {text} ({', '.join(names)})"
            for text, names in (("the features of its earlier content were removed", outdated),
                                ("features of it are in the store", kept))
            if names
        )  # fmt: skip

    def next(self) -> Job | str | None:
        """A claimed job; "waiting" where all that is left is in other workers' hands; None at the end."""
        with self._lock:
            while self.todo:
                file = self.todo.popleft()
                if not self.missing(file):
                    self._present(file)
                elif not self.claims.take(file.id):
                    self.held.append(file)
                elif not (missing := self.missing(file)):  # finished while we looked
                    self.claims.give_up(file.id)
                    self._present(file)
                elif (record := self.failures.get(file.id, newer_than=self._began)) is not None:
                    self.claims.give_up(file.id)  # another worker just tried it
                    self.summary.failed[file.id] = record["reason"]
                    self.bar.finished(file.id)
                else:
                    self._sweep(file.id)
                    return Job(file, missing)
            if not self.held:
                return None
            self.todo, self.held = deque(self.held), []
            return "waiting"

    def _present(self, file: VideoFile) -> None:
        for stream in self.streams.values():
            stream.note_time(file.id, file.path)
        self.summary.present.append(file.id)
        self.bar.present()

    def _sweep(self, video_id: str) -> None:
        starts = tuple(f".{(video_id + suffix)[:80]}." for suffix in (".npy", ".json"))
        for path in self._leftovers:
            if path.name.startswith(starts):
                path.unlink(missing_ok=True)


def renamed(files: Sequence[VideoFile], streams: dict[str, Path]) -> dict[str, str]:
    """Ids in a store whose video is among `files` under another id: their features would be taken twice."""
    ids = {printable(file.path): file.id for file in files}
    known = {file.id for file in files}
    found = {}
    for folder in streams.values():
        for array in folder.glob("*.npy"):
            video_id = array.stem
            if video_id in known or video_id in found or video_id.startswith("."):
                continue
            try:
                source = read_json(array.with_suffix(".json"))["source"]
            except (UserError, KeyError, TypeError):
                continue
            if source in ids:
                found[video_id] = ids[source]
    return dict(sorted(found.items()))

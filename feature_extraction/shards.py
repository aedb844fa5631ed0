"""Which worker takes which video: shards by hash, and claims on a shared store.

A shard is a fixed part of the list, for machines that know nothing of each other. A claim is a file made with
O_EXCL and touched while its owner lives, for workers that share a store. Both may be used together. Two workers
that take the same video after all (a claim's file system broke) write the same bytes: nothing is lost but time.
"""

import hashlib
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import in_folder

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 90.0

_VARIABLES = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("RANK", "WORLD_SIZE"),
)


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n`, i from 0 to n - 1. Raises `UserError`."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not int(match[1]) < int(match[2]):
        raise UserError(f"--shard {text!r}: expected i/n with i from 0 to n - 1, for example 0/8")
    return int(match[1]), int(match[2])


def shard_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The shard that SLURM (job array, or tasks of one job) or torchrun gave this process; 0 of 1 elsewhere.

    A job array may begin at any number (SLURM_ARRAY_TASK_MIN). Arrays with tasks of their own multiply.
    """
    shard = 0, 1
    for index_name, count_name in _VARIABLES:
        if index_name not in environment or count_name not in environment:
            continue
        try:
            index, count = int(environment[index_name]), int(environment[count_name])
            if index_name == "SLURM_ARRAY_TASK_ID":
                step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1)) or 1
                index = (index - int(environment.get("SLURM_ARRAY_TASK_MIN", 0))) // step
        except ValueError:
            raise UserError(f"{index_name}={environment[index_name]!r}, {count_name}={environment[count_name]!r}: "
                            "expected whole numbers; give --shard i/n") from None  # fmt: skip
        if not 0 <= index < count:
            raise UserError(f"{index_name}={index} is not below {count_name}={count}; give --shard i/n")
        if index_name == "RANK" and shard[1] > 1:
            continue  # torchrun under SLURM sets both for the same processes
        shard = shard[0] * count + index, shard[1] * count
    return shard


def in_shard(video_id: str, shard: tuple[int, int]) -> bool:
    """Whether a video belongs to shard (i, n): by the hash of its id, so the same on every machine and day."""
    index, count = shard
    return int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big") % count == index


class Claims:
    """Claims of this process on videos of a store; a thread keeps them fresh until `close`."""

    def __init__(self, store: Path, heartbeat: float = HEARTBEAT_SECONDS, stale: float = STALE_SECONDS) -> None:
        self.folder = Path(store) / ".work" / "claims"
        in_folder(self.folder, lambda: os.stat(self.folder))
        self.stale = stale
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True, name="claims")
        self._thread.start()

    def _path(self, video_id: str) -> Path:
        return self.folder / f"{video_id}.claim"

    def take(self, video_id: str) -> bool:
        """Claim a video; False where another living worker has it."""
        path = self._path(video_id)
        for _ in range(2):
            try:
                # A worker that ends removes the folder where it is empty
                handle = in_folder(
                    self.folder, lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
                )
            except FileExistsError:
                if not self._abandoned(path):
                    return False
                self._clear(path)
                continue
            with os.fdopen(handle, "w") as file:
                json.dump(self._owner, file)
            with self._lock:
                self._held.add(video_id)
            return True
        return False

    def _abandoned(self, path: Path) -> bool:
        try:
            age = self._now() - path.stat().st_mtime
            text = path.read_text()
        except FileNotFoundError:
            return False  # just given up: the next look will tell
        try:
            owner = json.loads(text)
        except json.JSONDecodeError:
            owner = {}  # just made, or its maker died at once: the age will tell
        if owner.get("host") == self._owner["host"] and age > 1:
            try:
                os.kill(int(owner["pid"]), 0)
            except ProcessLookupError:
                return True
            except PermissionError:
                pass  # alive, another user's
        return age > self.stale

    def _now(self) -> float:
        """The file system's own clock: machines that share it may disagree about the time."""
        probe = self.folder / f".clock-{self._owner['token']}"
        in_folder(self.folder, probe.touch)
        return probe.stat().st_mtime

    def _clear(self, path: Path) -> None:
        # Renaming first: of two workers that both saw it abandoned only one gets it
        aside = path.with_name(f".{path.name}.{self._owner['token']}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        if not self._abandoned(aside):
            try:
                os.link(aside, path)  # it was a new owner's: put it back
            except FileExistsError:
                pass
        aside.unlink(missing_ok=True)

    def give_up(self, video_id: str) -> None:
        """Let go of a video: it is done, failed, or not wanted."""
        with self._lock:
            self._held.discard(video_id)
        self._path(video_id).unlink(missing_ok=True)

    def _beat(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            with self._lock:
                held = list(self._held)
            for video_id in held:
                try:
                    os.utime(self._path(video_id))
                except FileNotFoundError:
                    pass  # given up in between

    def close(self) -> None:
        """Give up what is held."""
        self._stop.set()
        self._thread.join()
        for video_id in list(self._held):
            self.give_up(video_id)
        (self.folder / f".clock-{self._owner['token']}").unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            try:
                folder.rmdir()
            except OSError:
                return  # another worker's claims, or failures, are there

"""The parent's side of decoding: one child process that serves many videos, watched for hangs and crashes."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from feature_extraction.settings import ExtractionSettings
from feature_extraction.video.read import UnreadableVideo

_PACKAGES = str(Path(__file__).resolve().parents[2])

Message = tuple[str, Any]
"""("begin", grid frames promised), ("frames", uint8 [N, H, W, 3]), ("restart", reason), or, last, ("done", what is
known of the video)."""


class DecodeProcess:
    """A decoding child. Started when first needed, killed where it hangs, replaced where it died."""

    def __init__(self, settings: ExtractionSettings, chunk_frames: int = 32) -> None:
        self.settings = settings
        self.chunk_frames = chunk_frames
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._errors = None

    def frames(self, path: Path) -> Iterator[Message]:
        """Decode one video onto the time grid. Raises `UnreadableVideo` where that fails.

        Where decord hangs or crashes (settings `auto`) the video is begun again with PyAV, after a "restart".
        """
        try:
            yield from self._request(path, self.settings.decoder)
        except _ChildLost as error:
            if self.settings.decoder != "auto":
                raise UnreadableVideo(str(error)) from None
            yield "restart", str(error)
            try:
                yield from self._request(path, "pyav")
            except _ChildLost as second:
                raise UnreadableVideo(f"{second} (decord before that: {error})") from None

    def _request(self, path: Path, decoder: str) -> Iterator[Message]:
        settings = self.settings
        request = {
            "path": str(path), "decoder": decoder, "fps": settings.fps, "short_side": settings.short_side,
            "max_frames": settings.max_frames, "max_pixels": settings.max_pixels,
            "accept_truncated": settings.accept_truncated, "chunk_frames": self.chunk_frames,
        }  # fmt: skip
        if self._process is None:
            self._start()
        waited, whole = 0.0, False
        try:
            self._send(request)
            while True:
                began = time.monotonic()
                header = self._receive(min(settings.stall_seconds, settings.video_seconds - waited))
                # Only the child's own slowness counts, not how long our side takes for the frames
                waited += time.monotonic() - began
                kind = header.pop("kind")
                if kind == "frames":
                    frames_NHWC = np.empty(header["shape"], np.uint8)
                    self._receive_into(frames_NHWC)
                    yield "frames", frames_NHWC
                elif kind == "begin":
                    yield "begin", header["frames"]
                elif kind == "restart":
                    yield "restart", header["reason"]
                elif kind == "failed":
                    whole = True
                    raise UnreadableVideo(header["reason"], header["frames"])
                elif kind == "done":
                    whole = True
                    yield "done", header
                    return
        finally:
            if not whole:
                # Its next bytes would belong to this video
                self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # Frames are megabytes: a larger buffer lets the child run ahead by a chunk
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        self._errors = tempfile.TemporaryFile()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*(place for place in sys.path if place), _PACKAGES]),
            "OMP_NUM_THREADS": "1",
        }
        # -P: else Python looks for modules in the current folder first, which may be a stranger's folder of videos
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "feature_extraction.video.child", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=self._errors, env=environment,
        )  # fmt: skip
        theirs.close()
        self._connection = Connection(ours.detach())

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._connection.send_bytes(json.dumps(request).encode())
        except (BrokenPipeError, ConnectionResetError):
            raise _ChildLost(self._obituary()) from None

    def _receive(self, patience: float) -> dict[str, Any]:
        try:
            if not self._connection.poll(max(0.0, patience)):
                raise _ChildLost(f"hangs: no frame within {max(0.0, patience):.0f} s")
            return json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            raise _ChildLost(self._obituary()) from None

    def _receive_into(self, frames_NHWC: np.ndarray) -> None:
        try:
            self._connection.recv_bytes_into(memoryview(frames_NHWC).cast("B"))
        except (EOFError, ConnectionResetError):
            raise _ChildLost(self._obituary()) from None

    def _obituary(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = "closed its connection"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"crashes the decoder (exit {code}{': ' + lines[-1][:200] if lines else ''})"

    def kill(self) -> None:
        """Kill the child, from any thread; whoever waits for it wakes up."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._errors.close()
        self._process = self._connection = self._errors = None


class _ChildLost(Exception):
    """The child hung or died; the message says which."""

"""The process that decodes: a broken video can hang or crash it, and nothing else.

`python -m feature_extraction.video.child FD` serves one connection: requests in, frames out. Requests and reply
headers are JSON (nothing is unpickled); frames follow their header as raw bytes. It ends when the other side does.

    -> {"path": ..., "fps": ..., "short_side": ..., "decoder": "auto" | "decord" | "pyav", ...}
    <- {"kind": "begin", "frames": ...}                      how many grid frames the header promises
    <- {"kind": "frames", "shape": [N, H, W, 3]} + bytes     any number of times
    <- {"kind": "restart", "reason": ...}                    decord failed; PyAV begins at the first frame
    <- {"kind": "done", ...} or {"kind": "failed", "reason": ..., "frames": ...}
"""

import ctypes
import hashlib
import json
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from feature_extraction.video import read as video
from feature_extraction.video.resize import resize_short_side, resized

CHUNK_BYTES = 32 << 20


class _Sender:
    """Collects grid frames into chunks and sends them."""

    def __init__(self, connection: Connection, chunk_frames: int) -> None:
        self.connection, self.chunk_frames = connection, chunk_frames
        self.frames: list[np.ndarray] = []
        self.shape: tuple[int, ...] | None = None
        """Of the first frame; every other one must have it, in later chunks too."""

    def restart(self, reason: str) -> None:
        self.frames, self.shape = [], None
        self.header(kind="restart", reason=reason)

    def header(self, **values: Any) -> None:
        self.connection.send_bytes(json.dumps(values).encode())

    def add(self, rgb_HWC: np.ndarray) -> None:
        self.shape = self.shape or rgb_HWC.shape
        if self.shape != rgb_HWC.shape:
            raise video.UnreadableVideo("changes its picture's shape midway")
        self.frames.append(rgb_HWC)
        if len(self.frames) >= self.chunk_frames or len(self.frames) * rgb_HWC.nbytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.frames:
            chunk_NHWC = np.stack(self.frames)
            self.header(kind="frames", shape=chunk_NHWC.shape)
            self.connection.send_bytes(memoryview(chunk_NHWC).cast("B"))
            self.frames = []

    def beat(self) -> None:
        self.header(kind="beat")


def serve(connection: Connection) -> None:
    """Answer requests until the other side closes."""
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        sender = _Sender(connection, request["chunk_frames"])
        try:
            _decode(request, sender)
        except video.UnreadableVideo as error:
            sender.header(kind="failed", reason=str(error), frames=error.frames)
        except MemoryError:
            sender.header(kind="failed", reason="does not fit into memory", frames=0)


def _decode(request: dict[str, Any], sender: _Sender) -> None:
    path = Path(request["path"])
    before = _stamp(path)
    info = video.probe(path)
    if info.width * info.height > request["max_pixels"]:
        raise video.UnreadableVideo(
            f"has pictures of {info.width}x{info.height}, more than max_pixels {request['max_pixels']} allows"
        )
    decoder = video.choose_decoder(info, request["decoder"])
    sender.header(kind="begin", frames=max(1, round(info.duration * request["fps"])))
    sampler, broken = _send_frames(path, decoder, request, sender)
    if broken and decoder == "decord" and request["decoder"] == "auto":
        # All frames of a video come from one decoder
        decoder = "pyav"
        sender.restart(broken)
        sampler, broken = _send_frames(path, decoder, request, sender)
    if sampler.read == 0:
        raise video.UnreadableVideo(broken or "holds no frame")
    broken = broken or video.shortfall(info, sampler)
    if broken and not request["accept_truncated"]:
        raise video.UnreadableVideo(f"breaks off after {sampler.read} frames: {broken}", sampler.read)
    sender.flush()
    sender.header(
        kind="done", decoder=decoder, frames=sampler.emitted, source_frames=sampler.read,
        duration=round(sampler.duration, 6), codec=info.codec, pixel_format=info.pixel_format,
        width=info.width, height=info.height, rotation=info.rotation, source_fps=round(info.fps, 6),
        truncated=broken or None, **_fingerprint(path, before, sender),
    )  # fmt: skip


def _send_frames(path: Path, decoder: str, request: dict[str, Any], sender: _Sender) -> tuple[video.GridSampler, str]:
    """Send a video's grid frames; the sampler, and why decoding broke off (empty where it did not)."""
    sampler = video.GridSampler(request["fps"])
    broken = ""

    def emit(chosen: tuple[np.ndarray, int] | None) -> None:
        if chosen is None:
            return
        height, width = resized(*chosen[0].shape[:2], request["short_side"])
        if height * width > request["max_pixels"]:
            raise video.UnreadableVideo(
                f"has pictures of {width}x{height} after resizing, more than max_pixels {request['max_pixels']} allows",
                sampler.read,
            )
        if sampler.emitted > request["max_frames"]:
            raise video.UnreadableVideo(
                f"its times span more than max_frames ({request['max_frames']}) frames of the grid", sampler.read
            )
        small_HWC = resize_short_side(chosen[0], request["short_side"])
        for _ in range(chosen[1]):
            sender.add(small_HWC)

    frames = video.read_frames(path, decoder)
    while True:
        try:
            frame = next(frames, None)
            if frame is None:
                break
            chosen = sampler.push(frame)
        except video.UnreadableVideo as error:
            broken = str(error)
            break
        emit(chosen)
        if sampler.read % 512 == 0:
            sender.beat()  # a low grid rate can leave seconds between chunks
    if sampler.read:
        emit(sampler.finish())
    return sampler, broken or sampler.disorder(decoder)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of change of a file."""
    try:
        status = path.stat()
    except OSError:
        return None  # `probe` says why
    return status.st_size, status.st_mtime_ns


def _fingerprint(path: Path, before: tuple[int, int] | None, sender: _Sender) -> dict[str, Any]:
    """Size in bytes, time of change and SHA-256 of the source, which must be as it was `before`."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                size += len(block)
                if size % (1 << 29) == 0:
                    sender.beat()
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        raise video.UnreadableVideo(f"cannot be read ({error.strerror})") from None
    if _stamp(path) != before:
        raise video.UnreadableVideo("was changed while it was read; run the command again once it is whole")
    return {"size": size, "mtime_ns": before[1], "sha256": digest.hexdigest()}


def main() -> None:
    """Serve the socket whose file descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    if sys.platform == "linux":
        # A decoder that hangs holding the interpreter would outlive a killed parent
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    try:
        with Connection(int(sys.argv[1])) as connection:
            serve(connection)
    except (BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main()

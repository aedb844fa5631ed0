"""Video files: what is in them, and their frames in order with their times.

Two decoders behind one interface: the decord API (distribution decord2; fast), and PyAV (reference and fallback).
On 8-bit video both give the same bits; deeper video goes to PyAV, because decord's colours are off there.
Frames are read in order only: no seeking, so memory stays flat and frame i is frame i.

Legend: H rows, W columns, N frames; times are seconds from the first frame.
"""

import importlib.metadata
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feature_extraction.errors import RunFailure

if TYPE_CHECKING:
    import av

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .ts .mts .m2ts .mpg .mpeg .wmv .flv .3gp .ogv .vob .mxf .gif".split()
)
"""File names that count as videos in a folder."""

_READ_BYTES = 16 << 20  # of decoded frames at a time
_SHORTFALL = 0.05  # of the stated duration, up to ...
_SHORTFALL_SECONDS = 3.0  # ... this; under it headers are commonly wrong
_LONGEST_BACK = 1.0  # seconds that a frame's time may lie before the one before it
_LONGEST_STILL = 3600.0  # seconds that one picture may last
_DISORDER = 0.01  # of the frames may come without progress in time


class UnreadableVideo(RunFailure):
    """A video that cannot be read, or not to its end; `frames` source frames could be."""

    def __init__(self, reason: str, frames: int = 0) -> None:
        super().__init__(reason)
        self.frames = frames


@dataclass(frozen=True)
class VideoInfo:
    """What a container says of its first video stream; it may be wrong."""

    codec: str
    pixel_format: str
    width: int
    """Pixels, as stored: before any rotation."""
    height: int
    fps: float
    """Average frames per second; 0 where not stated."""
    frames: int
    """Number of frames; 0 where not stated."""
    duration: float
    """Seconds of the video stream (of the container where the stream states none); 0 where not stated."""
    rotation: int
    """Degrees anticlockwise by which frames are turned for display: 0, 90, 180 or 270."""
    bits: int
    """Bits per colour component."""
    audio: bool


@dataclass(frozen=True)
class SourceFrame:
    """One decoded frame as it should be seen."""

    time: float
    """Seconds, as the container counts."""
    duration: float
    """Seconds; 0 where not stated."""
    rgb_HWC: np.ndarray
    """uint8."""


def open_container(path: Path) -> "av.container.InputContainer":
    """The file opened; texts in it that are no UTF-8 are no reason to refuse it."""
    import av

    # PyAV 19 has no such setting any more, and replaces what it cannot read
    texts = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
    return av.open(str(path), **texts)


def probe(path: Path) -> VideoInfo:
    """Read a video's header and first frame (rotation is stored with it). Raises `UnreadableVideo`."""
    import av

    _check_file(path)
    av.logging.set_level(av.logging.PANIC)
    try:
        with open_container(path) as container:
            stream = _video_stream(container)
            context = stream.codec_context
            if context is None:
                raise UnreadableVideo("its codec is not known")
            format_ = context.format
            duration = _stated_duration(container, stream)
            context.thread_count = 1
            first = next(container.decode(stream), None)
            if first is None:
                raise UnreadableVideo("holds no frame")
            return VideoInfo(
                codec=context.name,
                pixel_format=first.format.name,
                width=first.width,
                height=first.height,
                fps=float(stream.average_rate or 0),
                frames=int(stream.frames or 0),
                duration=duration,
                rotation=int(first.rotation) % 360,
                bits=max((part.bits for part in (first.format or format_).components), default=8),
                audio=bool(container.streams.audio),
            )
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise UnreadableVideo(_reason(error)) from None


def _video_stream(container):
    if not container.streams.video:
        raise UnreadableVideo(f"holds {'only sound' if container.streams.audio else 'no video'}")
    return container.streams.video[0]


def _stated_duration(container, stream) -> float:
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base))
    tag = stream.metadata.get("DURATION", "")  # Matroska: 00:01:02.345000000
    parts = tag.split(":")
    if len(parts) == 3:
        try:
            return 3600 * float(parts[0]) + 60 * float(parts[1]) + float(parts[2])
        except ValueError:
            return 0.0
    # A container with sound may state the sound's duration
    if container.duration and not container.streams.audio:
        return max(0.0, container.duration / 1e6)
    return 0.0


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadableVideo(f"cannot be opened ({error.strerror})") from None
    if not path.is_file():
        raise UnreadableVideo("is no file")
    if size == 0:
        raise UnreadableVideo("is empty (0 bytes)")


def decoder_version(name: str) -> str:
    """Version of the distribution behind a decoder, `decord` or `pyav`."""
    for distribution in {"decord": ("decord2", "decord"), "pyav": ("av",)}[name]:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def choose_decoder(info: VideoInfo, wanted: str) -> str:
    """The decoder for a video: `wanted`, or for `auto` decord where its pictures are right and PyAV elsewhere."""
    if wanted != "auto":
        return wanted
    return "decord" if info.bits <= 8 and info.rotation == 0 and info.pixel_format.startswith("yuv") else "pyav"


def read_frames(path: Path, decoder: str) -> Iterator[SourceFrame]:
    """Every frame of a video in order of display, by `decord` or `pyav`.

    Raises `UnreadableVideo` where the file cannot be opened, or where decoding breaks off.
    """
    _check_file(path)
    return {"decord": _read_decord, "pyav": _read_pyav}[decoder](path)


def _read_decord(path: Path) -> Iterator[SourceFrame]:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    count = 0
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        total = len(reader)
        if total == 0:
            raise UnreadableVideo("holds no frame")
        times_N2 = np.asarray(reader.get_frame_timestamp(np.arange(total)), np.float64)
        starts_N = times_N2[:, 0]
        if not np.isfinite(times_N2).all() or np.abs(times_N2).max() > 1e9 or (np.diff(starts_N) < 0).any():
            raise UnreadableVideo("decord gives no usable times")
        first = reader.get_batch([0]).asnumpy()
        step = max(1, min(32, _READ_BYTES // max(1, first[0].nbytes)))
        yield SourceFrame(starts_N[0], times_N2[0, 1] - starts_N[0], first[0])
        count = 1
        while count < total:
            chunk_NHWC = reader.get_batch(np.arange(count, min(count + step, total))).asnumpy()
            for rgb_HWC in chunk_NHWC:
                start, end = times_N2[count]
                yield SourceFrame(start, end - start, rgb_HWC)
                count += 1
    except (decord.DECORDError, RuntimeError, IndexError, ValueError, OSError) as error:
        if isinstance(error, UnreadableVideo):
            raise
        raise UnreadableVideo(_reason(error), count) from None


def _read_pyav(path: Path) -> Iterator[SourceFrame]:
    import av

    av.logging.set_level(av.logging.PANIC)
    count, previous, clock = 0, None, _Clock()
    try:
        with open_container(path) as container:
            stream = _video_stream(container)
            stream.codec_context.thread_count = 1
            step = 1 / float(stream.average_rate or 25)
            with closing(container.decode(stream)) as frames:
                for frame in frames:
                    time = clock.time(frame)
                    if time is None:
                        time = 0.0 if previous is None else previous + step
                    turns = int(frame.rotation) // 90 % 4
                    rgb_HWC = frame.to_ndarray(format="rgb24")
                    length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
                    yield SourceFrame(time, length, np.rot90(rgb_HWC, turns) if turns else rgb_HWC)
                    previous, count = time, count + 1
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(_reason(error), count) from None
    if count == 0:
        raise UnreadableVideo("holds no frame")


class _Clock:
    """Which of a frame's two times to believe, that of display or that of decoding.

    AVI files hold times of decoding alone, and with B-frames the times of display made from them go back and forth:
    then the other ones, which the frames have in order, are right to a frame. Elsewhere times of display are right.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._faults = {"pts": 0, "dts": 0}

    def time(self, frame: "av.VideoFrame") -> float | None:
        """Seconds; None for a frame without either."""
        known = {name: value for name in self._faults if (value := getattr(frame, name)) is not None}
        for name, value in known.items():
            self._faults[name] += name in self._last and value <= self._last[name]
            self._last[name] = value
        if not known or frame.time_base is None:
            return None
        wrong = "pts" not in known or ("dts" in known and self._faults["pts"] > self._faults["dts"])
        return float(known["dts" if wrong else "pts"] * frame.time_base)


def _reason(error: Exception) -> str:
    """One line that says what the decoder met."""
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
    return f"cannot be decoded ({text.splitlines()[0][:200]})"


class GridSampler:
    """Frames on a regular time grid: each grid time takes the frame whose time is nearest.

    Grid time j is `j / fps` seconds after the first frame. Where two frames are equally near (to a millisecond:
    decoders round times) the earlier one is taken. Frames that do not come later than the one before are dropped;
    a jump back (recordings joined end to end) or far ahead ends the reading.
    """

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.read = 0
        """Source frames seen."""
        self.emitted = 0
        """Grid frames given out."""
        self.repeated = 0
        """Source frames with the time of the one before, dropped."""
        self.backward = 0
        """Source frames with an earlier time than the one before, dropped."""
        self.longest_gap = 0.0
        """Seconds between two neighbouring frames."""
        self._first = self._last = self._duration = 0.0
        self._gap = 0.0
        self._held: np.ndarray | None = None

    def push(self, frame: SourceFrame) -> tuple[np.ndarray, int] | None:
        """Take the next source frame; gives an earlier one and how many grid times take it, where any do.

        Raises `UnreadableVideo`, and leaves the frame out, where its time lies far from that of the one before.
        """
        result = None
        if self._held is None:
            self._first = frame.time
        else:
            time = frame.time - self._first
            step = time - self._last
            if step < -_LONGEST_BACK:
                raise UnreadableVideo(f"its times jump back by {-step:.1f} s, as in recordings joined end to end")
            if step > _LONGEST_STILL:
                raise UnreadableVideo(f"its times jump ahead by {step:.0f} s from one frame to the next")
            self.longest_gap = max(self.longest_gap, step)
            if not time > self._last:
                self.read += 1
                self.backward += step < -1e-3
                self.repeated += step >= -1e-3
                return None
            until = math.floor(((self._last + time) / 2 + 1e-3) * self.fps) + 1
            if until > self.emitted:
                result = self._held, until - self.emitted
                self.emitted = until
            self._gap, self._last = time - self._last, time
        self.read += 1
        self._held, self._duration = frame.rgb_HWC, frame.duration
        return result

    def finish(self) -> tuple[np.ndarray, int] | None:
        """After the last source frame: the last picture and how many grid times are left for it."""
        count = max(1, math.floor(self.duration * self.fps + 0.5)) - self.emitted
        if self._held is None or count < 1:
            return None
        self.emitted += count
        return self._held, count

    def disorder(self, decoder: str) -> str:
        """Why too many frames were dropped for want of progress in time; empty where they were few.

        Equal times are harmless in PyAV's order of display, but decord sorts its times: there they may be those
        of another part of the video.
        """
        lost = self.backward + (self.repeated if decoder == "decord" else 0)
        if lost > max(2, _DISORDER * self.read):
            return f"{lost} of its {self.read} frames do not come later than the one before"
        return ""

    @property
    def duration(self) -> float:
        """Seconds from the first frame's start to the last one's end."""
        length = self._duration if 0 < self._duration < 10 else self._gap or 1 / self.fps
        return self._last + length


def shortfall(info: VideoInfo, sampler: GridSampler) -> str:
    """What of the stated video decoding did not give; empty where that is within what headers get wrong.

    Fewer frames than stated are no sign by themselves (an edit list hides some), but they are beside a gap in
    time.
    """
    short = info.duration - sampler.duration
    if short > max(1.0, min(_SHORTFALL_SECONDS, _SHORTFALL * info.duration)):
        return f"ends {short:.1f} s before its stated {info.duration:.1f} s"
    lacking = info.frames - sampler.read
    if info.fps > 0 and lacking > info.fps and sampler.longest_gap > _LONGEST_BACK:
        return f"lacks {lacking} of its stated {info.frames} frames, beside a gap of {sampler.longest_gap:.1f} s"
    return ""

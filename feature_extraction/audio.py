"""Log-mel features of sound, into the same feature store as video features.

    file --PyAV--> mono samples --STFT--> power --mel filters--> log --> `stack` frames side by side = one
    snippet

Decoding and resampling go through PyAV, so any container with an audio track will do (wav, flac, ogg, mp3,
mp4). The time grid counts samples where video counts frames: `fps` is the sample rate, window and stride are
in samples. Legend: N samples, F STFT frames, M mel bands, K frequency bins, T snippets, D = stack * M.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from feature_extraction.errors import UserError, reason_of
from feature_extraction.files import sha256_file
from feature_extraction.progress import progress
from feature_extraction.store.failures import FailureLog
from feature_extraction.store.stream import Stream, create_stream, video_ids
from feature_extraction.video.read import open_container

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".mkv", ".webm", ".mov")
STREAM = "logmel"
BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class AudioSettings:
    """Log-mel features."""

    sample_rate: int = 16000
    """Hz; files of another rate are resampled."""
    fft: int = 1024
    """Samples under one STFT window (Hann)."""
    hop: int = 256
    """Samples from one STFT frame to the next."""
    mels: int = 64
    """Mel bands (Slaney's scale, triangles of equal area)."""
    low: float = 0.0
    """Lowest frequency in Hz."""
    high: float | None = None
    """Highest frequency in Hz; none: half the sample rate."""
    stack: int = 4
    """STFT frames side by side in one snippet: a snippet lasts stack * hop / sample_rate seconds (64 ms)."""
    mean: int = 1
    """STFT frames behind each of the stack, by the mean of their log-mel: a snippet lasts mean times as long. With
    `stack` 1 that is the mean over the snippet."""
    floor: float = 1e-6
    """Added to the mel power before the natural logarithm."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "fft", "hop", "mels", "stack", "mean"):
            if getattr(self, name) < 1:
                raise UserError(f"audio.{name} must be at least 1, got {getattr(self, name)}")
        if self.hop > self.fft:
            raise UserError(f"audio.hop {self.hop} is over audio.fft {self.fft}: samples between windows would be lost")
        if not 0 <= self.low < self.top <= self.sample_rate / 2:
            raise UserError(
                f"audio: 0 <= low < high <= {self.sample_rate / 2:g} Hz expected, got {self.low}, {self.top}"
            )
        if not self.floor > 0:
            raise UserError(f"audio.floor must be positive, got {self.floor}")

    @property
    def stride(self) -> int:
        """Samples from one snippet to the next."""
        return self.stack * self.mean * self.hop

    @property
    def top(self) -> float:
        """Highest frequency in Hz."""
        return self.sample_rate / 2 if self.high is None else self.high


def mel_of(hertz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear below 1 kHz (15 mel), 27 steps per factor of 6.4 above."""
    hertz = np.asarray(hertz, np.float64)
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / math.log(6.4))


def hertz_of(mel: np.ndarray) -> np.ndarray:
    """The inverse of `mel_of`."""
    mel = np.asarray(mel, np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(math.log(6.4) * (np.maximum(mel, 15) - 15) / 27))


def mel_filters(settings: AudioSettings) -> Tensor:
    """Triangular filters `[K, M]`, float32, each scaled to the same area."""
    bins_K = np.arange(settings.fft // 2 + 1) * settings.sample_rate / settings.fft
    edges = hertz_of(np.linspace(mel_of(settings.low), mel_of(settings.top), settings.mels + 2))
    left_M, centre_M, right_M = edges[:-2], edges[1:-1], edges[2:]
    rise_KM = (bins_K[:, None] - left_M) / (centre_M - left_M)
    fall_KM = (right_M - bins_K[:, None]) / (right_M - centre_M)
    weight_KM = np.maximum(0, np.minimum(rise_KM, fall_KM)) * 2 / (right_M - left_M)
    if (dead := np.flatnonzero(weight_KM.max(axis=0) == 0)).size:
        raise UserError(
            f"audio: mel band {dead[0]} of {settings.mels} holds no frequency bin; use fewer mels or a longer fft"
        )
    return torch.from_numpy(weight_KM.astype(np.float32))


def log_mel(samples_N: np.ndarray, settings: AudioSettings) -> np.ndarray:
    """Features `[T, D]`, float32, of mono samples in -1..1; the last snippet is padded with silence.

    The window of STFT frame f is centred on the hop that it stands for, so snippet t describes the time that
    the grid gives it. Raises `UserError` for no samples.
    """
    if len(samples_N) == 0:
        raise UserError("no audio samples")
    snippets = math.ceil(len(samples_N) / settings.stride)
    frames = snippets * settings.stack * settings.mean
    before = (settings.fft - settings.hop) // 2
    needed = (frames - 1) * settings.hop + settings.fft
    padded_N = torch.zeros(needed)
    padded_N[before : before + len(samples_N)] = torch.from_numpy(np.asarray(samples_N, np.float32))[: needed - before]
    window, filters_KM = torch.hann_window(settings.fft), mel_filters(settings)
    pieces = []
    for first in range(0, frames, BLOCK):
        last = min(first + BLOCK, frames)
        part = padded_N[first * settings.hop : (last - 1) * settings.hop + settings.fft]
        spectrum_KF = torch.stft(part, settings.fft, settings.hop, window=window, center=False, return_complex=True)
        pieces.append(torch.log(spectrum_KF.abs().square().T @ filters_KM + settings.floor))
    frame_FM = torch.cat(pieces)
    if settings.mean > 1:
        frame_FM = frame_FM.view(-1, settings.mean, settings.mels).mean(dim=1)
    return frame_FM.view(snippets, settings.stack * settings.mels).numpy()


def read_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Mono float32 samples in -1..1 at `sample_rate` Hz of the file's first audio track.

    A damaged packet ends the reading. Raises `UserError` for a file that is missing, unreadable or without
    audio.
    """
    import av

    try:
        with open_container(path) as container:
            if not container.streams.audio:
                raise UserError(f"{path}: no audio track")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
            pieces = []
            for frame in container.decode(audio=0):
                frame.pts = None
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path}: not readable audio ({reason_of(error)})") from None
    if not pieces:
        raise UserError(f"{path}: the audio track is empty")
    return np.concatenate(pieces).astype(np.float32)


def open_logmel(out: Path, settings: AudioSettings) -> Stream:
    """The store's stream for these settings, made if it is not there."""
    identity = {
        "network": "log-mel", **asdict(settings), "high": settings.top,
        "fps": float(settings.sample_rate),
        "window": settings.fft + settings.stride - settings.hop,
        "stride": settings.stride,
        "dim": settings.stack * settings.mels,
    }  # fmt: skip
    if settings.mean == 1:
        del identity["mean"]  # streams of before it was there keep their names
    return create_stream(out, STREAM, identity)


def audio_files(source: Path) -> dict[str, Path]:
    """Id -> file of every file below `source` (or of the one file) that may have sound. Raises `UserError` for none."""
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    root = source.parent if source.is_file() else source
    found = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{source}: no audio files (looked for {', '.join(SUFFIXES)})")
    names = video_ids(PurePosixPath(path.relative_to(root).as_posix()) for path in found)
    return {key: root / name for key, name in names.items()}


def extract_audio(source: Path, out: Path, settings: AudioSettings) -> Iterator[tuple[str, str | None]]:
    """Log-mel features of every audio file below `source` (or of one file) into the store `out`.

    Files that are done are passed over, so a stopped run goes on. Yields (id, None) for each file done now
    and (id, reason) for each that failed; failures are also in `failures.jsonl`.
    """
    names = audio_files(source)
    stream, failures = open_logmel(out, settings), FailureLog(out)
    left = {key: path for key, path in names.items() if not stream.holds(key, path)}
    for key, path in progress(left.items(), desc="audio", unit="file"):
        try:
            samples_N = read_audio(path, settings.sample_rate)
            features_TD = log_mel(samples_N, settings)
        except UserError as error:
            if stream.is_of_another(key, path):
                stream.discard(key)  # of the file's earlier content
            failures.record(key, path, str(error), 0)
            yield key, str(error)
            continue
        sidecar = {
            "duration": len(samples_N) / settings.sample_rate,
            "source": str(path),
            "size": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
            "sha256": sha256_file(path),
            "padding": len(features_TD) * settings.stride - len(samples_N),
        }
        stream.write(key, features_TD, sidecar)
        failures.forget(key)
        yield key, None
    failures.gather()

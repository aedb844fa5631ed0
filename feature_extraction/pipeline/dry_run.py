"""What an extraction would do: the list of videos, the disk it takes and about how long it lasts."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from feature_extraction.flow.compute import compute_flow, usable_cores
from feature_extraction.networks.preprocess import window_count
from feature_extraction.networks.towers import Tower, choose_precision, identity, load_towers, pick_device
from feature_extraction.pipeline import cost
from feature_extraction.pipeline.assembly import snippets_a_batch
from feature_extraction.pipeline.cost import PartCost, Prediction
from feature_extraction.progress import progress
from feature_extraction.settings import ExtractionSettings
from feature_extraction.store.claims import in_shard
from feature_extraction.store.failures import FailureLog
from feature_extraction.store.stream import open_stream_of
from feature_extraction.video.listing import list_videos
from feature_extraction.video.read import UnreadableVideo, probe

NPY_HEADER_BYTES = 128
SIDECAR_BYTES = 450
FLOW = "TV-L1"
TIMED_SIZE = (256, 340)  # of frames whose size is only known once they are decoded


@dataclass(frozen=True)
class Plan:
    """The answer of `--dry-run`."""

    videos: int
    """Videos of this shard."""
    done: int
    """Of these, in the store already."""
    to_do: list[str]
    """Ids of the others that can be opened."""
    unreadable: dict[str, str]
    """Id -> why it cannot be opened."""
    hours: float
    """Hours of video to extract, as the containers say; videos that state no duration count as 0."""
    unstated: int
    """Videos that state no duration."""
    disk_bytes: int
    """What the features will take."""
    seconds: float
    """About how long this machine takes, from one timed batch a network and of flow; decoding is not counted."""
    failed_before: int
    """Videos in `failures.jsonl`; they are tried again."""
    elsewhere: int
    """Videos of the other shards."""
    predictions: list[Prediction]
    """What whole data sets would take (`feature_extraction.pipeline.cost`); none where nothing is to do."""
    on_gpu: bool
    """Whether what they rest on was measured on a GPU."""

    def text(self, as_json: bool) -> str:
        """For people (the list, then a summary), or as JSON."""
        if as_json:
            return json.dumps(asdict(self), ensure_ascii=False)
        lines = list(self.to_do)
        lines += [f"{video_id}: unreadable: {reason}" for video_id, reason in self.unreadable.items()]
        lines.append(self.summary())
        if self.predictions:
            lines.append(cost.text(self.predictions, self.on_gpu))
        return "\n".join(lines)

    def summary(self) -> str:
        """All of it in a line."""
        others = f"; {self.elsewhere} more are other shards'" if self.elsewhere else ""
        unstated = f" (and {self.unstated} that state no duration)" if self.unstated else ""
        return (
            f"{len(self.to_do)} of {self.videos} videos to extract, {self.hours:.2f} hours of video{unstated}; "
            f"{self.done} are there, {len(self.unreadable)} unreadable, {self.failed_before} failed before; "
            f"about {self.disk_bytes / 1e6:.1f} MB and {self.seconds / 60:.1f} minutes on this machine{others}"
        )


def plan(
    videos: Path | str | Sequence[Path | str],
    out: Path | str,
    settings: ExtractionSettings,
    *,
    shard: tuple[int, int] = (0, 1),
    resolve: Callable[[str], str] | None = None,
    weights: Path | None = None,
    offline: bool = False,
) -> Plan:
    """What `extract` with the same arguments would do. Writes nothing. Raises what `extract` raises."""
    every = list_videos(videos)
    files = [file for file in every if in_shard(file.id, shard)]
    device = pick_device(settings.device)
    towers = load_towers(settings, device, resolve, weights, offline)
    precision = choose_precision(settings.precision, device)
    streams = {
        name: open_stream_of(Path(out), name, identity(settings, name, tower, precision))
        for name, tower in towers.items()
    }
    to_do, unreadable, seconds, snippets, frames, disk, unstated, done = [], {}, 0.0, 0, 0, 0, 0, 0
    shape = TIMED_SIZE
    for file in progress(files, unit="video", desc="look"):
        missing = [
            name for name, stream in streams.items() if not stream.holds(file.id, file.path, settings.accept_truncated)
        ]
        if not missing:
            done += 1
            continue
        try:
            info = probe(file.path)
        except UnreadableVideo as error:
            unreadable[file.id] = str(error)
            continue
        to_do.append(file.id)
        seconds += info.duration
        unstated += not info.duration
        count = max(1, round(info.duration * settings.fps))
        parts = window_count(count, settings.window, settings.stride)
        frames, snippets = frames + count, snippets + parts
        disk += sum(parts * math.prod(streams[name].shape) * 2 + NPY_HEADER_BYTES + SIDECAR_BYTES for name in missing)
        scale = (settings.short_side or min(info.height, info.width)) / min(info.height, info.width)
        shape = (max(32, round(info.height * scale)), max(32, round(info.width * scale)))
    on_gpu = device.type == "cuda"
    costs = part_costs(settings, towers, device, shape) if to_do else {}
    # on a CPU every part keeps all cores busy, a batch or a pair each
    cores, a_snippet = 1 if on_gpu else usable_cores(), settings.fps / settings.stride
    number = {name: frames if name == FLOW else snippets * part.a_second / a_snippet for name, part in costs.items()}
    needed = sum(part.seconds * number[name] for name, part in costs.items()) / cores
    failed = FailureLog(Path(out)).read()
    hours, elsewhere = seconds / 3600, len(every) - len(files)
    predictions = cost.predict(costs, settings, on_gpu) if to_do else []
    return Plan(
        len(files), done, to_do, unreadable, hours, unstated, disk, needed, len(failed), elsewhere, predictions, on_gpu
    )


def part_costs(
    settings: ExtractionSettings, towers: Mapping[str, Tower], device: torch.device, shape: tuple[int, int]
) -> dict[str, PartCost]:
    """What each network and flow take for frames of this `shape`, from one batch of each on noise, which costs as much
    as video: on one core of a CPU, or on the GPU."""
    generator = np.random.default_rng(0)
    gpu = device if device.type == "cuda" else None
    pairs = 128 if gpu else 2
    threads = torch.get_num_threads()
    if gpu is None:
        torch.set_num_threads(1)
    parts = {}
    height, width = shape
    side = (settings.crop, settings.crop) if settings.crop else (height, width)
    for name, tower in towers.items():
        channels = 2 if name == "flow" else 3
        size = (height, width, 3) if name == "clip" else (settings.window, *side, channels)
        # of windows as many as extraction takes at once: small ones cost more in small batches
        count = 32 if gpu else 2 if name == "clip" else settings.batch_snippets or snippets_a_batch(size)
        inputs = [generator.integers(0, 256, size, dtype=np.uint8)] * count
        per_snippet = settings.clip_frames if name == "clip" and settings.clip_fps is None else 1
        flops = 0
        if gpu is None:
            with FlopCounterMode(display=False) as counter:
                tower.run(inputs[:1])
            flops = counter.get_total_flops()
        took = _timed(lambda tower=tower, inputs=inputs: tower.run(inputs)) / count
        parts[name] = PartCost(took, per_snippet * settings.fps / settings.stride, flops)
    torch.set_num_threads(threads)
    if "flow" in towers:
        # Smoothed noise moved by two pixels: about the work of a moving picture
        small = generator.random((height // 8 + 2, width // 8 + 2), np.float32) * 255
        frame = np.kron(small, np.ones((8, 8), np.float32))[:height, :width]
        previous_NHW = np.stack([frame] * pairs)
        pair = previous_NHW, np.roll(previous_NHW, 2, axis=2)
        options = {"algorithm": settings.flow_algorithm, "device": gpu, "threads": 1}
        took = _timed(lambda: compute_flow(*pair, settings.flow, **options)) / pairs
        parts[FLOW] = PartCost(took, settings.fps, 0, height * width)
    return parts


def _timed(work: Callable[[], object]) -> float:
    """Seconds of the second of two runs: the first one warms up."""
    work()
    began = time.monotonic()
    work()
    return time.monotonic() - began

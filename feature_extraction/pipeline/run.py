"""Videos in, feature store out: decoding, flow, networks and writing at the same time, in bounded memory.

    decoding children --> flow thread --> batches (the calling thread) --> writing thread
                                             |  ^
                                           networks (the same thread on a GPU, a thread a core on a CPU)

The queues between them are bounded, in chunks of frames and in batches.

A video's features hang on nothing but the video and the settings: on a CPU a batch holds snippets of one video
only, counted from its beginning; on a GPU batches span videos and have a fixed shape, padded with zeros.
"""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_extraction.errors import UserError
from feature_extraction.files import place_failure
from feature_extraction.flow.compute import compute_flow, usable_cores
from feature_extraction.networks.preprocess import quantize_flow, still_flow, to_gray
from feature_extraction.networks.towers import Tower, choose_precision, identity, load_towers, pick_device
from feature_extraction.pipeline.assembly import Assembly, Batcher
from feature_extraction.pipeline.channel import Channel, Line, Stopped
from feature_extraction.pipeline.network_pool import NetworkPool
from feature_extraction.pipeline.progress import Progress
from feature_extraction.pipeline.worklist import ExtractionSummary, Job, Work, renamed
from feature_extraction.settings import ExtractionSettings
from feature_extraction.store.claims import Claims, in_shard
from feature_extraction.store.failures import FailureLog
from feature_extraction.store.stream import Stream, create_stream, printable
from feature_extraction.video.listing import VideoFile, list_videos
from feature_extraction.video.process import DecodeProcess
from feature_extraction.video.read import UnreadableVideo

POLL_SECONDS = 2.0
NO_MEMORY = "does not fit into memory"


def extract(
    videos: Path | str | Sequence[Path | str],
    out: Path | str,
    settings: ExtractionSettings,
    *,
    shard: tuple[int, int] = (0, 1),
    resolve: Callable[[str], str] | None = None,
    weights: Path | None = None,
    offline: bool = False,
    progress: bool = True,
    only: Collection[str] | None = None,
) -> ExtractionSummary:
    """Extract every video of a folder (or of a list of files and folders) into the store `out`.

    Videos whose features are there are passed over, so that the same call after a kill goes on. A video that
    cannot be read is recorded in `failures.jsonl` and in the summary, and the others are done. `shard` (i, n)
    takes the i-th of n parts, `only` those of these ids. `resolve` turns `shipped:NAME` into a path. `weights` and
    `offline` are as for `weights.locate`. Raises `UserError` for bad settings, weights or folders.
    """
    every = list_videos(videos)
    chosen = None if only is None else set(only)
    files = [file for file in every if in_shard(file.id, shard) and (chosen is None or file.id in chosen)]
    device = pick_device(settings.device)
    towers = load_towers(settings, device, resolve, weights, offline)
    summary = Extractor(settings, towers, device).run(files, Path(out), progress)
    summary.elsewhere = len(every) - len(files)
    summary.renamed = renamed(every, summary.streams)
    return summary


class Extractor:
    """The networks and settings of an extraction; `run` may be called many times."""

    def __init__(
        self, settings: ExtractionSettings, towers: dict[str, Tower], device: torch.device, cores: int | None = None
    ) -> None:
        self.settings, self.towers, self.device = settings, towers, device
        self.on_gpu = device.type == "cuda"
        self.cores = min(cores or usable_cores(), usable_cores())
        """Threads of the flow, of the networks on a CPU, and what the number of decoding children goes by."""

    def streams(self, out: Path) -> dict[str, Stream]:
        """The stream folders of these settings in a store, made where they are missing."""
        precision = choose_precision(self.settings.precision, self.device)
        return {
            name: create_stream(out, name, identity(self.settings, name, tower, precision))
            for name, tower in self.towers.items()
        }

    def run(self, files: list[VideoFile], out: Path, progress: bool = True) -> ExtractionSummary:
        """Extract videos into a store; see `extract`."""
        try:
            return self._run(files, out, progress)
        except OSError as error:
            if (failure := place_failure(error, out)) is not None:
                raise failure from None
            raise

    def _run(self, files: list[VideoFile], out: Path, progress: bool) -> ExtractionSummary:
        began = time.monotonic()
        streams = self.streams(out)
        summary = ExtractionSummary({name: stream.folder for name, stream in streams.items()})
        failures = FailureLog(out)
        claims = Claims(out)
        bar = Progress(len(files), progress)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a batch a thread, see `NetworkPool`
        try:
            work = Work(files, streams, claims, failures, summary, bar, self.settings.accept_truncated)
            _Run(self, work, bar).go()
        finally:
            bar.close()
            torch.set_num_threads(threads)
            claims.close()
        failures.gather()
        summary.seconds = time.monotonic() - began
        return summary


class _Run:
    """One pass of the pipeline."""

    def __init__(self, extractor: Extractor, work: Work, bar: Progress) -> None:
        self.extractor, self.settings, self.work, self.bar = extractor, extractor.settings, work, bar
        self.summary = work.summary
        self.line = Line()
        settings, on_gpu = extractor.settings, extractor.on_gpu
        wanted = settings.workers or (max(1, min(8, extractor.cores // 2)) if on_gpu else 1)
        self.children = [DecodeProcess(settings, 128 if on_gpu else 32) for _ in range(wanted)]
        self.decoded = Channel(self.line, 2 + len(self.children), senders=len(self.children))
        self.flowed = Channel(self.line, 4)
        self.written = Channel(self.line, 64)
        sizes = {
            "clip": settings.batch_images or (256 if on_gpu else 16),
            "rgb": settings.batch_snippets or (32 if on_gpu else 0),
        }
        sizes["flow"] = sizes["rgb"]
        self.pool = NetworkPool(0 if on_gpu else extractor.cores)
        self.batchers = {
            name: Batcher(name, tower, sizes[name], on_gpu, self.pool) for name, tower in extractor.towers.items()
        }
        self.settling: list[Job] = []  # all frames seen, features not all back

    def go(self) -> None:
        """Run all stages; the networks run in this thread."""
        threads = [
            self.line.thread(lambda child=child: self._decode(child), f"decode-{number}")
            for number, child in enumerate(self.children)
        ]
        threads.append(self.line.thread(self._flow, "flow"))
        threads.append(self.line.thread(self._write, "write"))
        try:
            self._networks()
            self.written.done()
            while any(thread.is_alive() for thread in threads) and not self.line.stopping.is_set():
                threads[-1].join(0.2)
                if not threads[-1].is_alive():
                    break
        except Stopped:
            pass
        except BaseException as error:
            self.line.fail(error)
            raise
        finally:
            self.line.stopping.set()
            for child in self.children:
                child.kill()
            self.pool.close()
            for thread in threads:
                thread.join()
            for child in self.children:
                child.close()
        if self.line.error is not None:
            raise self.line.error

    def _decode(self, child: DecodeProcess) -> None:
        while (job := self.work.next()) is not None:
            if job == "waiting":
                self.decoded.put(("idle", None, None))
                if self.line.stopping.wait(POLL_SECONDS):
                    raise Stopped
                continue
            try:
                for kind, content in child.frames(job.file.path):
                    self.decoded.put((kind, job, content))
            except UnreadableVideo as error:
                self.decoded.put(("failed", job, (str(error), error.frames)))
            except MemoryError:
                self.decoded.put(("failed", job, (NO_MEMORY, 0)))
        self.decoded.done()

    def _flow(self) -> None:
        for kind, job, content in self.decoded:
            if kind == "restart":
                job.gray_1HW = job.flow_1HW2 = None
            elif kind in ("frames", "done") and "flow" in job.missing:
                try:
                    flow_NHW2 = self._flow_of(job, content) if kind == "frames" else self._last_flow(job)
                except (UserError, ValueError, MemoryError) as error:
                    kind, content = "failed", (f"flow: {_reason(error)}", 0)
                else:
                    if flow_NHW2 is not None:
                        self.flowed.put(("flow", job, flow_NHW2))
            self.flowed.put((kind, job, content))
        self.flowed.done()

    def _flow_of(self, job: Job, rgb_NHWC: np.ndarray) -> np.ndarray | None:
        settings = self.settings
        gray_NHW = to_gray(rgb_NHWC)
        if job.gray_1HW is not None:
            gray_NHW = np.concatenate([job.gray_1HW, gray_NHW])
        job.gray_1HW = gray_NHW[-1:].copy()
        if len(gray_NHW) < 2:
            return None
        flow_N2HW = compute_flow(
            gray_NHW[:-1], gray_NHW[1:], settings.flow, algorithm=settings.flow_algorithm,
            device=self.extractor.device if self.extractor.on_gpu else None, threads=self.extractor.cores,
        )  # fmt: skip
        flow_NHW2 = quantize_flow(flow_N2HW, settings.flow_bound)
        job.flow_1HW2 = flow_NHW2[-1:].copy()
        return flow_NHW2

    def _last_flow(self, job: Job) -> np.ndarray:
        """The last frame has no follower: it gets the flow before it, or none where it is the only one."""
        if job.flow_1HW2 is not None:
            return job.flow_1HW2
        return still_flow(1, *job.gray_1HW.shape[1:])

    def _networks(self) -> None:
        for kind, job, content in self.flowed:
            if kind == "idle":
                self._flush_all()
            elif job.failed or self._refused(job):
                continue
            elif kind == "failed":
                self._fail(job, *content)
            else:
                try:
                    self._advance(kind, job, content)
                except (UserError, ValueError, MemoryError) as error:
                    self._fail(job, _reason(error), 0)
        self._flush_all()

    def _advance(self, kind: str, job: Job, content: Any) -> None:
        if kind == "begin":
            job.promised = content
        if kind == "restart" or job.assembly is None:
            self._drop(job)
            job.assembly = Assembly(self.settings, job.missing)
        assembly = job.assembly
        if kind == "frames":
            assembly.frames += len(content)
            self.summary.frames += len(content)
            for name in ("rgb", "clip"):
                if name in job.missing:
                    self.batchers[name].add(assembly, assembly.push(name, content))
            self.bar.frames(job.file.id, len(content), assembly.frames, job.promised)
        elif kind == "flow":
            self.batchers["flow"].add(assembly, assembly.push("flow", content))
        elif kind == "done":
            for name in job.missing:
                self.batchers[name].add(assembly, assembly.finish(name))
            assembly.ended, job.info = True, content
            self.settling.append(job)
            for batcher in self.batchers.values():
                if not batcher.spanning:
                    batcher.flush(assembly)
        self._settle()

    def _flush_all(self) -> None:
        for batcher in self.batchers.values():
            batcher.flush()
        self.pool.collect()
        self._settle()

    def _refused(self, job: Job) -> bool:
        """Fail a video of which a network refused an input."""
        if job.assembly is None or job.assembly.error is None:
            return False
        self._fail(job, job.assembly.error, 0)
        return True

    def _settle(self) -> None:
        self.settling = [job for job in self.settling if not self._refused(job)]
        for job in [job for job in self.settling if job.assembly.complete]:
            self.settling.remove(job)
            info = {name: value for name, value in job.info.items()}
            sidecar = {"source": printable(job.file.path), **info, "padding": job.assembly.padding}
            arrays = job.assembly.arrays()
            job.assembly = None
            self.written.put((job, arrays, sidecar))

    def _drop(self, job: Job) -> None:
        if job.assembly is not None:
            for batcher in self.batchers.values():
                batcher.drop(job.assembly)
            job.assembly = None

    def _fail(self, job: Job, reason: str, frames: int) -> None:
        job.failed = True
        self._drop(job)
        self.written.put((job, None, (reason, frames)))

    def _write(self) -> None:
        work = self.work
        for job, arrays, rest in self.written:
            video_id = job.file.id
            if arrays is not None:
                try:
                    for name, array_TD in arrays.items():
                        work.streams[name].write(video_id, array_TD, rest)
                except UserError as error:
                    arrays, rest = None, (str(error), rest["frames"])
            if arrays is None:
                reason, frames = rest
                reason += work.drop_outdated(job)
                work.failures.record(video_id, job.file.path, reason, frames)
                self.summary.failed[video_id] = reason
                self.bar.tell(f"extract: {job.file.path}: {reason}")
            else:
                work.failures.forget(video_id)
                self.summary.done.append(video_id)
            work.claims.give_up(video_id)
            self.bar.finished(video_id)


def _reason(error: Exception) -> str:
    return NO_MEMORY if isinstance(error, MemoryError) else str(error)

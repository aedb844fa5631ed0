"""Extraction on Ray: workers that each run the whole pipeline on a group of videos of a shared store.

Ray starts a worker that died again and gives it the group anew; what of the group is in the store stays. The
store must be on a file system that all workers see.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feature_extraction.errors import RunFailure, UserError
from feature_extraction.pipeline.run import ExtractionSummary, renamed
from feature_extraction.progress import progress
from feature_extraction.settings import ExtractionSettings
from feature_extraction.store.failures import FailureLog
from feature_extraction.video.listing import VideoFile, list_videos

GROUP = 32  # videos a task at most: each task starts a decoding process of its own
RETRIES = 20  # deaths of workers that one group survives


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """How many workers, and what each may use."""

    workers: int = 2
    """Worker processes."""
    gpus: float = 0.0
    """GPUs a worker: 0.5 puts two workers on one."""
    cpus: float = 1.0
    """CPU cores a worker; it runs as many threads, one where this is below 2."""
    address: str | None = None
    """An existing cluster (`auto`, `ray://...`); None starts a local one."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"Ray workers must be at least 1, got {self.workers}")
        if self.gpus < 0 or not self.cpus > 0:
            raise UserError(f"Ray gpus must be 0 or more and cpus above 0, got {self.gpus} and {self.cpus}")


class _Worker:
    """Lives in a Ray process: the networks, loaded once, and a pipeline run a group."""

    def __init__(self, settings: ExtractionSettings, out: str, weights: str | None, offline: bool, cores: int) -> None:
        from feature_extraction.networks.towers import load_towers, pick_device
        from feature_extraction.pipeline.run import Extractor

        device = pick_device(settings.device)
        towers = load_towers(settings, device, None, Path(weights) if weights else None, offline)
        self.extractor = Extractor(settings, towers, device, cores)
        self.out = Path(out)

    def extract(self, group: list[tuple[str, str]]) -> ExtractionSummary:
        """Extract (id, path) pairs."""
        files = [VideoFile(video_id, Path(path)) for video_id, path in group]
        return self.extractor.run(files, self.out, progress=False)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("--runner ray needs Ray; install it with: pip install 'wtal[ray]'") from None
    return ray


def extract_on_ray(
    videos: Path | str | Sequence[Path | str],
    out: Path | str,
    settings: ExtractionSettings,
    ray_settings: RaySettings,
    *,
    resolve: Callable[[str], str] | None = None,
    weights: Path | None = None,
    offline: bool = False,
    on_progress: Callable[[int, list[Any]], None] | None = None,
) -> ExtractionSummary:
    """As `pipeline.extract`, on Ray workers. `on_progress` gets the number of finished groups and the workers.

    Raises `UserError` without Ray, and `RunFailure` where workers cannot be started or keep dying.
    """
    ray = _import_ray()
    files = list_videos(videos)
    settings = resolved(settings, resolve)
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = not ray.is_initialized()
    began = time.monotonic()
    if started:
        options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False}
        if ray_settings.address is None:
            options |= {"num_cpus": max(1, int(ray_settings.workers * ray_settings.cpus + 0.999))}
        ray.init(address=ray_settings.address, **options)
    try:
        _check_room(ray.cluster_resources(), ray_settings)
        actor = ray.remote(
            num_cpus=ray_settings.cpus, num_gpus=ray_settings.gpus, max_restarts=-1, max_task_retries=RETRIES
        )(_Worker)
        place = str(weights.resolve()) if weights else None
        arguments = settings, str(out), place, offline, max(1, int(ray_settings.cpus))
        workers = [actor.remote(*arguments) for _ in range(ray_settings.workers)]
        summary = _share_out(ray, workers, files, on_progress)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        raise RunFailure(f"a Ray worker failed: {cause!r}") from error
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise RunFailure(f"Ray: {first}; the same command goes on from here") from None
    finally:
        if started:
            ray.shutdown()
    FailureLog(out).gather()
    summary.seconds = time.monotonic() - began
    summary.renamed = renamed(files, summary.streams)
    return summary


def _check_room(resources: Mapping[str, float], ray_settings: RaySettings) -> None:
    """Ray waits for ever, and without a word, for what a machine does not have.

    Raises `UserError` where a local Ray has no room for all workers; of a cluster, which may grow, it is told.
    """
    wanted, gpus = ray_settings.workers, int(resources.get("GPU", 0))
    if not ray_settings.gpus:
        room = wanted
    elif ray_settings.gpus < 1:  # a part is of one GPU
        room = gpus * int(1 / ray_settings.gpus + 1e-9)
    else:
        room = int(gpus / ray_settings.gpus + 1e-9)
    lacking = f"{gpus} GPU{'' if gpus == 1 else 's'} for {wanted} workers of {ray_settings.gpus:g} each"
    if room >= wanted:
        cpus = resources.get("CPU", 0)
        if wanted * ray_settings.cpus <= cpus + 1e-9:
            return
        room = int(cpus / ray_settings.cpus + 1e-9)
        lacking = f"{cpus:g} CPU cores for {wanted} workers of {ray_settings.cpus:g} each"
    if ray_settings.address is None:
        raise UserError(f"Ray has {lacking}, so only {room} could start; lower --ray-workers or a worker's share")
    tqdm.write(f"extract (ray): the cluster has {lacking}; waiting for more", file=sys.stderr)


def resolved(settings: ExtractionSettings, resolve: Callable[[str], str] | None) -> ExtractionSettings:
    """Settings whose `shipped:` places are paths: a worker has no resolver."""
    from dataclasses import replace

    if resolve is None:
        return settings
    places = {name: getattr(settings, name) for name in ("i3d_rgb", "i3d_flow", "clip_model", "clip_pretrained")}
    return replace(settings, **{name: resolve(place) for name, place in places.items() if place})


def _share_out(
    ray: Any, workers: list[Any], files: list[VideoFile], on_progress: Callable[[int, list[Any]], None] | None
) -> ExtractionSummary:
    # At least four tasks a worker, so that the last ones end together
    size = max(1, min(GROUP, len(files) // (4 * len(workers))))
    groups = [files[start : start + size] for start in range(0, len(files), size)][::-1]
    total, finished = ExtractionSummary({}), 0
    running: dict[Any, Any] = {}
    with progress(total=len(files), unit="video", desc="extract (ray)") as bar:
        while groups or running:
            for worker in workers:
                if groups and worker not in running.values():
                    group = groups.pop()
                    running[worker.extract.remote([(file.id, str(file.path)) for file in group])] = worker
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in ready:
                del running[reference]
                part = ray.get(reference)
                total.streams = part.streams
                total.done += part.done
                total.present += part.present
                total.failed |= part.failed
                total.frames += part.frames
                finished += 1
                bar.update(len(part.done) + len(part.present) + len(part.failed))
                if on_progress is not None:
                    on_progress(finished, workers)
    return total

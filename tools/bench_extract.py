"""How fast is feature extraction here: each stage alone, all together, and what memory it took.

    python tools/bench_extract.py [VIDEOS] [--config FILE] [--set KEY=VALUE ...] [--json]

Without VIDEOS it draws its own clips; without weights in the configuration it uses random networks of full width,
which cost the same. Prints seconds of each stage alone (decode, flow, networks, write) over the same frames, with
all cores and with one; the whole pipeline's seconds; and what these make of the overlap:

    over_slowest_one_core   whole / slowest stage that has a core of its own: 1.0 or less is a perfect overlap
    over_slowest_all_cores  whole / slowest stage that has the whole machine: stages that keep all cores busy (a
                            CPU's flow and networks) cannot overlap below the next figure
    least_over_slowest      (all stages, each with the whole machine) / the slowest one of them
    over_least              whole / all stages, each with the whole machine: 1.0 loses nothing (CPU)

Run it on a quiet machine. Also printed: the peak memory of the process and of its largest decoding child, and,
from a run of the pipeline alone in a process of its own, the peak memory without the stages' copies of all
frames. `--long HOURS` runs one generated video of that length
through the whole pipeline and reports the peak memory against that of a short one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from feature_extraction.errors import UserError
from feature_extraction.flow.compute import compute_flow
from feature_extraction.networks.i3d import I3D, for_inference
from feature_extraction.networks.preprocess import quantize_flow, to_gray
from feature_extraction.networks.towers import Tower, _i3d_runner, choose_precision, load_towers, pick_device
from feature_extraction.pipeline.network_pool import NetworkPool
from feature_extraction.pipeline.run import Extractor
from feature_extraction.settings import ExtractionSettings
from feature_extraction.store.stream import create_stream
from feature_extraction.video.listing import list_videos
from feature_extraction.video.process import DecodeProcess
from feature_extraction.video.read import UnreadableVideo


def draw_videos(folder: Path, count: int, frames: int, height: int = 256, width: int = 340, rate: int = 25) -> None:
    """H.264 clips of a texture that moves by a few pixels a frame."""
    import av

    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (height // 8 + 20, width // 8 + 20, 3), np.uint8)
        texture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "23"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for index in range(frames):
                y, x = (int(60 + 50 * f(index / 12 + number)) for f in (np.sin, np.cos))
                image = np.ascontiguousarray(texture[y : y + height, x : x + width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())


def random_towers(settings: ExtractionSettings, device: torch.device, width: float) -> dict[str, Tower]:
    """I3D networks with random weights; they cost what trained ones cost."""
    precision = choose_precision(settings.precision, device)
    towers = {}
    for name, channels in (("rgb", 3), ("flow", 2)):
        if name in settings.streams:
            model = for_inference(I3D(channels, 8, width).eval().to(device))
            run = _i3d_runner(model, settings, device, precision)
            towers[name] = Tower(run, model.feature_dim, {"architecture": "i3d", "random": True, "width": width})
    return towers


def peak_megabytes() -> dict[str, float]:
    """Highest resident memory so far: of this process, and of the largest child that has ended."""
    return {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "largest_child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def timed(work) -> tuple[float, object]:
    """Wall-clock seconds of a call, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _slowest(seconds: dict[str, float]) -> float:
    """Seconds of the slowest stage; the networks are one stage."""
    networks = sum(value for name, value in seconds.items() if name.startswith("network"))
    return max(networks, *(value for name, value in seconds.items() if not name.startswith("network")))


def peak_of_pipeline(arguments: list[str]) -> dict[str, float]:
    """Peak memory of the pipeline in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--pipeline-only", "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def bench(videos: Path, settings: ExtractionSettings, towers: dict[str, Tower], device: torch.device) -> dict:
    """Each stage alone and the whole, on the same videos; the frames of the stages are held in memory."""
    files = list_videos(videos)
    cores = len(os.sched_getaffinity(0))
    gpu = device if device.type == "cuda" else None
    decoded: list[np.ndarray] = []
    readable = []
    child = DecodeProcess(settings)

    def decode() -> None:
        for file in files:
            chunks = []
            try:
                chunks = [content for kind, content in child.frames(file.path) if kind == "frames"]
            except UnreadableVideo:
                continue
            readable.append(file)
            decoded.append(np.concatenate(chunks))

    list(child.frames(files[0].path))  # starts the child
    seconds = {"decode": timed(decode)[0]}
    child.close()
    one_core = {"decode": seconds["decode"]}  # the child decodes on one
    frames = sum(len(rgb_NHWC) for rgb_NHWC in decoded)
    flows: list[np.ndarray] = []

    def flow_of(rgb_NHWC: np.ndarray, threads: int = cores) -> np.ndarray:
        gray_NHW = to_gray(rgb_NHWC)
        flow_N2HW = compute_flow(
            gray_NHW[:-1], gray_NHW[1:], settings.flow, algorithm=settings.flow_algorithm,
            device=gpu, threads=threads,
        )  # fmt: skip
        return quantize_flow(flow_N2HW, settings.flow_bound)

    def flow(threads: int) -> None:
        flows[:] = [flow_of(rgb_NHWC, threads) for rgb_NHWC in decoded if len(rgb_NHWC) > 1]

    if "flow" in towers:
        flow_of(decoded[0][:3])  # compiles
        seconds["flow"] = timed(lambda: flow(cores))[0]
        one_core["flow"] = timed(lambda: flow(1))[0] if gpu is None else seconds["flow"]
    torch.set_num_threads(1)
    features: dict[str, list[np.ndarray]] = {name: [] for name in towers}

    def run_network(name: str, workers: int) -> None:
        features[name].clear()
        pool = NetworkPool(0 if gpu else workers)
        size = settings.batch_snippets or (32 if gpu else 4)
        for source in flows if name == "flow" else decoded:
            if name == "clip":
                middle = settings.window // 2
                inputs = list(source[middle :: settings.stride])
            else:
                starts = range(0, max(1, len(source) - settings.window + 1), settings.stride)
                inputs = [source[start : start + settings.window] for start in starts]
            for start in range(0, len(inputs), size):
                part = inputs[start : start + size]
                pool.submit(lambda part=part: towers[name].run(part), features[name].append)
        pool.collect()
        pool.close()

    for name, tower in towers.items():
        source = flows if name == "flow" else decoded
        tower.run([source[0][0] if name == "clip" else source[0][: settings.window]])
        key = f"network {name}"
        seconds[key] = timed(lambda name=name: run_network(name, cores))[0]
        one_core[key] = timed(lambda name=name: run_network(name, 1))[0] if gpu is None else seconds[key]
    peak_of_stages = peak_megabytes()
    with tempfile.TemporaryDirectory() as folder:
        grid = {"fps": settings.fps, "window": settings.window, "stride": settings.stride}
        streams = {n: create_stream(Path(folder), n, {**grid, "dim": tower.dim}) for n, tower in towers.items()}

        def write() -> None:
            for name, parts in features.items():
                for number, part_ND in enumerate(parts):
                    streams[name].write(str(number), part_ND, {})

        seconds["write"] = one_core["write"] = timed(write)[0]
    slowest, slowest_one_core = _slowest(seconds), _slowest(one_core)
    decoded.clear()
    flows.clear()
    with tempfile.TemporaryDirectory() as folder:
        total, summary = timed(lambda: Extractor(settings, towers, device).run(readable, Path(folder), progress=False))
    return {
        "device": str(device) if gpu is None else torch.cuda.get_device_name(device),
        "cores": cores,
        "load_average": round(os.getloadavg()[0], 1),
        "videos": len(readable),
        "unreadable": len(files) - len(readable),
        "frames": frames,
        "alone_seconds_all_cores": {name: round(value, 3) for name, value in seconds.items()},
        "alone_seconds_one_core": {name: round(value, 3) for name, value in one_core.items()},
        "together_seconds": round(total, 3),
        "over_slowest_one_core": round(total / slowest_one_core, 3),
        "over_slowest_all_cores": round(total / slowest, 3),
        "least_over_slowest": round(sum(seconds.values()) / slowest, 3),
        "over_least": round(total / sum(seconds.values()), 3),
        "frames_per_second": round(summary.frames / total, 2),
        "peak_megabytes_of_stages": peak_of_stages,
    }


def bench_long(hours: float, settings: ExtractionSettings, towers: dict[str, Tower], device: torch.device) -> dict:
    """Peak memory of a generated video of some hours against one of a minute."""
    extractor = Extractor(settings, towers, device)
    report, rate = {}, max(1, round(settings.fps))
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds in (("minute", 60), ("long", hours * 3600)):
            place = Path(folder, name)
            place.mkdir()
            draw_videos(place, 1, round(rate * seconds), 64, 96, rate)
            took, summary = timed(lambda place=place, name=name: extractor.run(
                list_videos(place), Path(folder, f"{name} out"), progress=False))  # fmt: skip
            report[name] = {
                "seconds_of_video": seconds, "frames": summary.frames, "took_seconds": round(took, 1),
                "done": len(summary.done), "peak_megabytes": peak_megabytes(),
            }  # fmt: skip
    return report


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path, help="a folder of videos (default: drawn ones)")
    parser.add_argument("--config", metavar="FILE", help="as for wtal extract; its networks are loaded")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings, as for wtal extract")
    parser.add_argument("--width", type=float, default=1.0, help="of the random I3D networks (default 1.0)")
    parser.add_argument("--clips", type=int, default=3, help="clips to draw (default 3)")
    parser.add_argument("--frames", type=int, default=48, help="frames of a drawn clip (default 48)")
    parser.add_argument("--long", type=float, metavar="HOURS", help="instead: memory over a video of so many hours")
    parser.add_argument("--pipeline-only", action="store_true", help="run the pipeline once; print its peak memory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.clips < 1 or options.frames < 2 or (options.long is not None and options.long <= 0):
        parser.error("--clips must be at least 1, --frames at least 2, --long above 0")
    from wtal.commands.extract import read_settings
    from wtal.config.shipped import resolve

    options.accept_truncated = False
    settings = read_settings(options)
    device = pick_device(settings.device)
    if options.config:
        towers = load_towers(settings, device, resolve)
    else:
        settings = replace(settings, streams=tuple(name for name in settings.streams if name != "clip"))
        towers = random_towers(settings, device, options.width)
    if options.pipeline_only:
        with tempfile.TemporaryDirectory() as folder:
            Extractor(settings, towers, device).run(list_videos(options.videos), Path(folder), progress=False)
        report = peak_megabytes()
    elif options.long:
        report = bench_long(options.long, settings, towers, device)
    elif options.videos:
        report = bench(options.videos, settings, towers, device)
        report["peak_megabytes_of_pipeline"] = peak_of_pipeline(sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            draw_videos(Path(folder), options.clips, options.frames)
            report = bench(Path(folder), settings, towers, device)
            report["peak_megabytes_of_pipeline"] = peak_of_pipeline([folder, *sys.argv[1:]])
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"bench_extract: {error}") from None

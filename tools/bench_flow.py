"""Pairs per second of TV-L1: ours against OpenCV's class on the same frames and cores, in one run.

    python tools/bench_flow.py                              # generated frames only
    python tools/bench_flow.py clip.mp4 ... --pairs 8       # real clips as well, resized to 340 x 256
    python tools/bench_flow.py --device cuda --pairs 512 --json

OpenCV's class runs twice: pair after pair with its own threads, and one pair a thread with its threads off; the
better of both is the baseline. `bytes_per_pair` counts ten planes read and seven written by every iteration over a
level; `copy_fraction` relates bytes a second to what copying a large array on the same cores (or device) moves, so
above 1 the caches did the work. Each figure is the best of `--repeat` rounds that alternate between the programs.

With `--device cuda` the Triton and the PyTorch version run on frames and into flow that lie on the device, the one
that `tvl1_flow` takes also from and to arrays of the host, and the compiled version on the host's cores is the
baseline, on as many pairs as these do in a moment (OpenCV's class beside it where this OpenCV has it). Bytes are
those that a design cannot avoid: nine planes read and six written an iteration for Triton; for PyTorch what each of
its operations reads and writes, counted in a run of its own.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from feature_extraction.flow import tvl1_cpu  # noqa: E402
from feature_extraction.flow.compute import compute_flow, cuda_backend  # noqa: E402
from feature_extraction.flow.settings import TVL1Settings  # noqa: E402

BYTES_PER_UPDATE = 17 * 4
TRITON_BYTES_PER_UPDATE = 15 * 4


def clip_pairs(path: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbouring frames, spread over the first seconds of a clip, gray, 340 x 256."""
    if not Path(path).is_file():
        sys.exit(f"bench_flow: {path}: there is no such file; name video files")
    capture = cv2.VideoCapture(path)
    frames = []
    while len(frames) < 8 * count:
        done, frame = capture.read()
        if not done:
            break
        frames.append(cv2.cvtColor(cv2.resize(frame, (340, 256)), cv2.COLOR_BGR2GRAY))
    if len(frames) < 2:
        sys.exit(f"bench_flow: {path}: fewer than two frames can be read")
    gray = np.stack(frames).astype(np.float32)
    at = np.linspace(0, len(gray) - 2, count).astype(int)
    return gray[at], gray[at + 1]


def generated_pairs(height: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc moving over a still, textured ground."""
    generator = np.random.default_rng(0)
    previous, following = [], []
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = min(height, width) / 4
    for _ in range(count):
        ground, disc = (cv2.GaussianBlur(generator.random((height, width), np.float32), (0, 0), 2) for _ in "ab")
        motion = generator.uniform(-3, 3, 2)
        for frames, (dx, dy) in ((previous, (0, 0)), (following, motion)):
            inside = np.hypot(x - width / 2 - dx, y - height / 2 - dy) < radius
            shifted = cv2.warpAffine(disc, np.float32([[1, 0, dx], [0, 1, dy]]), (width, height), borderMode=2)
            frame = np.where(inside, shifted, ground)
            frames.append((frame - 0.3) * 600)
    return tuple(np.rint(np.clip(np.stack(frames), 0, 255)) for frames in (previous, following))


def opencv_flow(pairs: tuple[np.ndarray, np.ndarray], cores: int, one_pair_a_thread: bool) -> np.ndarray:
    settings = TVL1Settings()
    cv2.setNumThreads(1 if one_pair_a_thread else cores)
    threads = cores if one_pair_a_thread else 1
    return compute_flow(*pairs, settings, algorithm="tvl1_opencv", threads=threads)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def copy_bandwidth(cores: int, device: str) -> float:
    """Bytes a second read and written by copying arrays that fit in no cache."""
    if device != "cpu":
        import torch

        source = torch.empty(1 << 28, device=device)
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            torch.cuda.synchronize()

        return 2 * source.nbytes / min(seconds(copy) for _ in range(5))
    arrays = [(np.ones(1 << 24, np.float32), np.ones(1 << 24, np.float32)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        best = min(seconds(lambda: list(pool.map(lambda pair: np.copyto(*pair), arrays))) for _ in range(5))
    return 2 * cores * arrays[0][0].nbytes / best


def measure(name: str, pairs: tuple[np.ndarray, np.ndarray], device: str, cores: int, repeat: int, copy: float) -> dict:
    settings = TVL1Settings()
    count = len(pairs[0])
    works = {
        "ours": lambda: compute_flow(*pairs, settings, device=device, threads=cores),
        "opencv_own_threads": lambda: opencv_flow(pairs, cores, False),
        "opencv_pair_a_thread": lambda: opencv_flow(pairs, cores, True),
    }
    flow = works["ours"]()
    reference = works["opencv_own_threads"]()
    error = np.sqrt(((flow - reference) ** 2).sum(1))
    best = dict.fromkeys(works, np.inf)
    for _ in range(repeat):
        for key, work in works.items():
            best[key] = min(best[key], seconds(work))
    updates = tvl1_cpu.solve(*pairs, settings, cores)[1].mean()
    rate = {key: count / value for key, value in best.items()}
    baseline = max(rate["opencv_own_threads"], rate["opencv_pair_a_thread"])
    moved = float(updates) * BYTES_PER_UPDATE
    return {
        "frames": name, "size": f"{pairs[0].shape[2]}x{pairs[0].shape[1]}", "pairs": count,
        "ours_pairs_per_second": rate["ours"],
        "opencv_own_threads_pairs_per_second": rate["opencv_own_threads"],
        "opencv_pair_a_thread_pairs_per_second": rate["opencv_pair_a_thread"],
        "ratio": rate["ours"] / baseline,
        "ratio_to_own_threads": rate["ours"] / rate["opencv_own_threads"],
        "bytes_per_pair": moved, "copy_fraction": moved * rate["ours"] / copy,
        "mean_end_point_error": float(error.mean()), "p99_end_point_error": float(np.percentile(error, 99)),
    }  # fmt: skip


def torch_bytes(pairs: tuple[np.ndarray, np.ndarray], settings: TVL1Settings, device: str) -> float:
    """Bytes a pair that the operations of the PyTorch version read and write; views move nothing."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Count(TorchDispatchMode):
        moved = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            aliases = [returned.alias_info for returned in function._schema.returns]
            if not any(alias is not None and not alias.is_write for alias in aliases):
                leaves = tree_leaves((args, kwargs, result))
                self.moved += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
            return result

    with Count() as count:
        compute_flow(*pairs, settings, algorithm="tvl1_torch", device=device)
    return count.moved / len(pairs[0])


def measure_device(
    name: str, pairs: tuple[np.ndarray, np.ndarray], device: str, cores: int, repeat: int, copy: float
) -> dict:
    import torch

    settings = TVL1Settings()
    count = len(pairs[0])
    few = tuple(frames[: min(count, 2 * cores)] for frames in pairs)
    on_device = [torch.from_numpy(frames).to(device) for frames in pairs]
    backend, reason = cuda_backend(device)

    def run(algorithm: str) -> torch.Tensor:
        flow = compute_flow(*on_device, settings, algorithm=algorithm)
        torch.cuda.synchronize()
        return flow

    works = {
        "torch": (count, lambda: run("tvl1_torch")),
        "from_and_to_host": (count, lambda: compute_flow(*pairs, settings, device=device)),
        "compiled_on_host": (len(few[0]), lambda: compute_flow(*few, settings, threads=cores)),
    }
    if backend == "triton":
        works["triton"] = (count, lambda: run("tvl1_triton"))
    if hasattr(cv2, "optflow"):
        works["opencv_pair_a_thread"] = (len(few[0]), lambda: opencv_flow(few, cores, True))
    reference, updates_N = tvl1_cpu.solve(*few, settings, cores)
    row = {"frames": name, "size": f"{pairs[0].shape[2]}x{pairs[0].shape[1]}", "pairs": count, "backend": backend}
    if reason:
        row["why_not_triton"] = reason
    best = dict.fromkeys(works, np.inf)
    for work in (works["compiled_on_host"], works["from_and_to_host"]):
        work[1]()
    for algorithm in ("triton", "torch"):
        if algorithm in works:
            flow = works[algorithm][1]()[: len(reference)].cpu().numpy()
            error = np.sqrt(((flow - reference) ** 2).sum(1))
            row[f"{algorithm}_mean_end_point_error"] = float(error.mean())
            row[f"{algorithm}_p99_end_point_error"] = float(np.percentile(error, 99))
            row[f"{algorithm}_equal_to_the_last_bit"] = float((flow == reference).mean())
    for _ in range(repeat):
        for key, (_, work) in works.items():
            best[key] = min(best[key], seconds(work))
    rate = {key: works[key][0] / best[key] for key in works}
    row |= {f"{key}_pairs_per_second": value for key, value in rate.items()}
    moved = {"torch": torch_bytes(pairs, settings, device)}
    if "triton" in works:
        from feature_extraction.flow import tvl1_triton

        updates_N = tvl1_triton.solve(*(frames.float() for frames in on_device), settings)[1].cpu().numpy()
        moved["triton"] = float(updates_N.mean()) * TRITON_BYTES_PER_UPDATE
    row["pixel_iterations_per_pair"] = float(updates_N.mean())
    for key, value in moved.items():
        row[f"{key}_bytes_per_pair"] = value
        row[f"{key}_copy_fraction"] = value * rate[key] / copy
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", help="videos to take frame pairs from")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="cpu (default) or cuda")
    parser.add_argument("--pairs", type=int, default=4, help="pairs per clip, on cuda generated ones too (default 4)")
    parser.add_argument("--small-pairs", type=int, default=64, help="pairs per generated size (default 64)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, of which the best counts (default 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores for both (default all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if min(options.pairs, options.small_pairs, options.repeat, options.threads) < 1:
        parser.error("--pairs, --small-pairs, --repeat and --threads must be at least 1")
    on_cpu = options.device == "cpu"
    if not on_cpu:
        import torch

        if not torch.cuda.is_available():
            sys.exit(f"--device {options.device}: PyTorch sees no CUDA device")
    tiny = generated_pairs(32, 32, 1)
    # Processor time, for compilation is one thread's work and other programs would be counted otherwise.
    began = time.process_time()
    compute_flow(*tiny, TVL1Settings())
    first_call = time.process_time() - began
    copy = copy_bandwidth(options.threads, options.device)
    sets = [(Path(clip).name, clip_pairs(clip, options.pairs)) for clip in options.clips]
    sizes = [(64, 64), (96, 96)] if on_cpu else [(256, 340)]
    count = options.small_pairs if on_cpu else options.pairs
    sets += [("generated", generated_pairs(*size, count)) for size in sizes]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    measured = measure if on_cpu else measure_device
    rows = [measured(name, pairs, options.device, options.threads, options.repeat, copy) for name, pairs in sets]
    machine = {
        "processor": platform.processor() or platform.machine(), "threads": options.threads,
        "device": options.device, "opencv": cv2.__version__, "load_at_start": load,
        "first_call_cpu_seconds": first_call, "copy_bytes_per_second": copy,
    }  # fmt: skip
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    print(", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in machine.items()))  # fmt: skip
    if not on_cpu:
        for row in rows:
            print()
            for key, value in row.items():
                print(f"{key:36s} {value:.6g}" if isinstance(value, float) else f"{key:36s} {value}")
        return
    print("frames                    size     ours/s  opencv/s  ratio  MB/pair  of copy  EPE mean    p99")
    for row in rows:
        baseline = row["ours_pairs_per_second"] / row["ratio"]
        print(
            f"{row['frames'][:24]:25s} {row['size']:8s} {row['ours_pairs_per_second']:6.1f} {baseline:9.2f} "
            f"{row['ratio']:6.1f} {row['bytes_per_pair'] / 1e6:8.0f} {row['copy_fraction']:8.2f} "
            f"{row['mean_end_point_error']:9.5f} {row['p99_end_point_error']:6.4f}"
        )


if __name__ == "__main__":
    main()

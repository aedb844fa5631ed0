"""TV-L1 optical flow between frame pairs, with the parameters, steps and stop rule of OpenCV's CPU class.

Shapes: N pairs, H rows, W columns; `flow_N2HW[:, 0]` is the motion along x, `[:, 1]` along y, in pixels.
"""

import functools
import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from feature_extraction.errors import UserError, reason_of
from feature_extraction.flow.settings import TVL1Settings

_HOST_BYTES = 1 << 30  # working memory of the PyTorch version on a CPU


def _by_device(previous: Any, following: Any, settings: TVL1Settings, device: str, threads: int) -> Any:
    """The compiled version on the CPU, the Triton one on CUDA where it runs, the PyTorch one elsewhere."""
    if device != "cpu":
        use = _triton if cuda_backend(device)[0] == "triton" else _torch
        return use(previous, following, settings, device, threads)
    from feature_extraction.flow.tvl1_cpu import solve

    return solve(_numpy(previous), _numpy(following), settings, threads)[0]


@functools.cache
def cuda_backend(device: str) -> tuple[str, str]:
    """What computes flow on a device other than the CPU, "triton" or "torch", and for "torch" why not Triton.

    A pair of 16 x 16 is computed by both, once a process: Triton needs a C compiler and a GPU that it knows.
    """
    import torch

    if not device.startswith("cuda"):
        return "torch", f"Triton is for CUDA devices, not {device}"
    if importlib.util.find_spec("triton") is None:
        return "torch", "triton is not installed"
    if not torch.cuda.is_available():
        return "torch", "PyTorch sees no CUDA device"
    settings = TVL1Settings(warps=1, inner_iterations=2, outer_iterations=1)
    frames = np.random.default_rng(0).uniform(0, 255, (2, 1, 16, 16)).astype(np.float32)
    try:
        flow = _triton(*frames, settings, device, 1)
    except Exception as error:  # foreign code, foreign errors; the PyTorch path needs nothing of it
        return "torch", f"Triton does not run here: {reason_of(error)}"
    difference = np.abs(flow - _torch(*frames, settings, device, 1)).max()
    if not difference < 1e-3:
        return "torch", f"Triton's flow differs by {difference:.3g} pixels on this machine"
    return "triton", ""


def _torch(previous: Any, following: Any, settings: TVL1Settings, device: str, threads: int) -> Any:
    """The PyTorch version on any device; PyTorch's own thread count holds."""
    from feature_extraction.flow.tvl1_torch import PLANES, solve

    return _in_parts(solve, PLANES, previous, following, settings, device)


def _triton(previous: Any, following: Any, settings: TVL1Settings, device: str, threads: int) -> Any:
    """The Triton version on a CUDA device, or on the CPU where Triton interprets."""
    if importlib.util.find_spec("triton") is None:
        raise UserError("flow algorithm tvl1_triton needs the package triton; install it or choose tvl1")
    if not device.startswith("cuda") and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError(f"flow algorithm tvl1_triton needs a CUDA device, got {device!r}; choose tvl1 there")
    try:
        from feature_extraction.flow.tvl1_triton import PLANES, solve
    except ImportError as error:
        raise UserError(f"flow algorithm tvl1_triton: the package triton cannot be imported ({error})") from None

    return _in_parts(lambda *arguments: solve(*arguments)[0], PLANES, previous, following, settings, device)


def _in_parts(
    solve: Callable[..., Any], planes: int, previous: Any, following: Any, settings: TVL1Settings, device: str
) -> Any:
    """Flow by a solver of tensors, as many pairs at once as the device's memory holds, returned to the frames' side.

    `planes` is how many float32 planes of the frames' size the solver needs for a pair.
    """
    import torch

    count, height, width = previous.shape
    is_array = isinstance(previous, np.ndarray)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    room = _HOST_BYTES
    if device.startswith("cuda"):
        # What PyTorch holds and does not use is free as well.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        room = (torch.cuda.mem_get_info(device)[0] + unused) // 2
    at_once = max(1, room // (4 * planes * height * width))
    flow_N2HW = torch.empty((count, 2, height, width), device=None if is_array else previous.device)
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        batches = (torch.from_numpy(np.array(f[part])) if is_array else f[part] for f in (previous, following))
        flow_N2HW[part] = solve(*(batch.to(device).float() for batch in batches), settings)
    return flow_N2HW.numpy() if is_array else flow_N2HW


def _opencv(previous: Any, following: Any, settings: TVL1Settings, device: str, threads: int) -> Any:
    """OpenCV's class, the oracle; OpenCV 4 rounds warped positions to 1/32 pixel, OpenCV 5 does not."""
    import cv2

    previous_NHW, following_NHW = _numpy(previous), _numpy(following)

    def one(pair: int) -> np.ndarray:
        # A fresh object each time: OpenCV keeps the number of scales of a small frame for later larger ones.
        solver = cv2.optflow.DualTVL1OpticalFlow_create(
            tau=settings.tau, theta=settings.theta, nscales=settings.scales, warps=settings.warps,
            epsilon=settings.epsilon, innnerIterations=settings.inner_iterations,
            outerIterations=settings.outer_iterations, scaleStep=settings.scale_step,
            medianFiltering=settings.median,
        )  # fmt: skip
        solver.setLambda(settings.lambda_)
        frames = [batch_NHW[pair] for batch_NHW in (previous_NHW, following_NHW)]
        if all((frame == np.rint(frame)).all() for frame in frames):
            frames = [frame.astype(np.uint8) for frame in frames]
        else:  # OpenCV multiplies float frames by 255, and both steps round
            frames = [frame / np.float32(255) for frame in frames]
        return np.moveaxis(solver.calc(*frames, None), -1, 0)

    count, height, width = previous_NHW.shape
    flow_N2HW = np.empty((count, 2, height, width), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        for pair, flow_2HW in enumerate(pool.map(one, range(count))):
            flow_N2HW[pair] = flow_2HW
    return flow_N2HW


FLOWS: dict[str, Callable[..., Any]] = {
    "tvl1": _by_device, "tvl1_torch": _torch, "tvl1_triton": _triton, "tvl1_opencv": _opencv,
}  # fmt: skip


def compute_flow(
    previous_NHW: Any, following_NHW: Any, settings: TVL1Settings, *,
    algorithm: str = "tvl1", device: Any = None, threads: int | None = None,
) -> Any:  # fmt: skip
    """Flow from `previous` to `following` by one of `FLOWS`; otherwise like `tvl1_flow`."""
    if algorithm not in FLOWS:
        raise UserError(f"flow algorithm {algorithm!r} is not known; choose one of {', '.join(FLOWS)}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise UserError(f"threads must be a whole number of at least 1 or None (all cores), got {threads!r}")
    for name, frames in (("previous", previous_NHW), ("following", following_NHW)):
        _check(name, frames)
    if previous_NHW.shape != following_NHW.shape or isinstance(previous_NHW, np.ndarray) != isinstance(
        following_NHW, np.ndarray
    ):
        raise UserError(
            f"previous and following frames must be of one kind and shape, got {_describe(previous_NHW)} "
            f"and {_describe(following_NHW)}"
        )
    is_array = isinstance(previous_NHW, np.ndarray)
    if device is None:
        device = "cpu" if is_array else previous_NHW.device
    flow = FLOWS[algorithm](previous_NHW, following_NHW, settings, str(device), threads or usable_cores())
    if is_array == isinstance(flow, np.ndarray):
        return flow if is_array else flow.to(previous_NHW.device)
    if is_array:
        return flow.cpu().numpy()
    import torch

    return torch.from_numpy(flow).to(previous_NHW.device)


def tvl1_flow(
    previous_NHW: Any, following_NHW: Any, *,
    tau: float = 0.25, lambda_: float = 0.15, theta: float = 0.3, scales: int = 5, scale_step: float = 0.8,
    warps: int = 5, epsilon: float = 0.01, inner_iterations: int = 30, outer_iterations: int = 10,
    median: int = 5, device: Any = None, threads: int | None = None,
) -> Any:  # fmt: skip
    """TV-L1 flow of N gray frame pairs: float32 (N, 2, H, W), pixels; x first, then y.

    Frames are numpy arrays or torch tensors (N, H, W) of grey levels 0..255, floating or uint8; the result is
    of the same kind, a tensor on the frames' device. `tau` to `median` are the fields of `TVL1Settings`.
    `device` is where to compute (default: where the frames are), `threads` how many CPU threads work, a pair
    each (default: all cores). The flow of a pair does not depend on the rest of the batch. Zach, Pock and
    Bischof, "A duality based approach for realtime TV-L1 optical flow" (2007); steps, parameters and stop rule
    of OpenCV's CPU class. Raises `UserError` for a parameter, shape, type or grey level outside of that.
    """
    settings = TVL1Settings(
        tau=tau, lambda_=lambda_, theta=theta, scales=scales, scale_step=scale_step, warps=warps,
        epsilon=epsilon, inner_iterations=inner_iterations, outer_iterations=outer_iterations,
        median=median,
    )  # fmt: skip
    return compute_flow(previous_NHW, following_NHW, settings, device=device, threads=threads)


def _check(name: str, frames: Any) -> None:
    """Refuse what is not a batch of gray frames."""
    dtype = str(getattr(frames, "dtype", None)).removeprefix("torch.")
    if not isinstance(frames, np.ndarray) and not hasattr(frames, "device"):
        raise UserError(f"{name} frames must be a numpy array or torch tensor, got {type(frames).__name__}")
    if dtype not in ("uint8", "float16", "bfloat16", "float32", "float64"):
        raise UserError(f"{name} frames must be floating numbers or uint8 of 0..255, got {dtype}")
    if frames.ndim != 3 or 0 in tuple(frames.shape[1:]):
        raise UserError(f"{name} frames must be gray and of shape (N, H, W), got {tuple(frames.shape)}")
    if dtype != "uint8" and len(frames):
        low, high = float(frames.min()), float(frames.max())
        if not (low >= -0.5 and high <= 255.5):
            raise UserError(f"{name} frames must hold grey levels of 0..255, got {low:g} to {high:g}")


def _describe(frames: Any) -> str:
    return f"{type(frames).__name__} {tuple(frames.shape)}"


def _numpy(frames: Any) -> np.ndarray:
    if not isinstance(frames, np.ndarray):
        frames = frames.detach().float().cpu().numpy()
    return frames.astype(np.float32, copy=False)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

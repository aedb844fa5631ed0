"""TV-L1 optical flow between frame pairs, with the parameters, steps and stop rule of OpenCV's CPU class.

Shapes: N pairs, H rows, W columns; `flow_N2HW[:, 0]` is the motion along x, `[:, 1]` along y, in pixels.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from feature_extraction.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TVL1Settings:
    """Parameters of TV-L1 (Zach, Pock and Bischof 2007); defaults of `cv2.optflow.DualTVL1OpticalFlow`."""

    tau: float = 0.25
    """Time step of the dual update; at most 0.25 for the scheme to be stable."""
    lambda_: float = 0.15
    """Weight of the data term; smaller gives smoother flow."""
    theta: float = 0.3
    """Tightness of the link between the data term and the smoothness term."""
    scales: int = 5
    """Pyramid levels at most; levels with a side under 16 pixels are left out."""
    scale_step: float = 0.8
    """Size of a pyramid level relative to the next finer one."""
    warps: int = 5
    """Warpings per pyramid level."""
    epsilon: float = 0.01
    """Stop once the mean squared change of the flow in one iteration is at most `epsilon ** 2` (pixels)."""
    inner_iterations: int = 30
    """Iterations at most between two median filterings."""
    outer_iterations: int = 10
    """Rounds of median filtering and inner iterations at most, per warp."""
    median: int = 5
    """Side of the median filter in pixels: 1 (none), 3 or 5."""

    def __post_init__(self) -> None:
        for name in ("tau", "lambda_", "theta", "epsilon"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"TV-L1 {name} must be a number, got {value!r}")
            if value < 0 or (value == 0 and name != "epsilon"):
                raise UserError(f"TV-L1 {name} must be positive, got {value!r}")
        if self.tau > 0.25:
            raise UserError(f"TV-L1 tau must be at most 0.25 (larger steps diverge), got {self.tau!r}")
        if not isinstance(self.scale_step, (int, float)) or not 0 < self.scale_step < 1:
            raise UserError(f"TV-L1 scale_step must lie between 0 and 1, got {self.scale_step!r}")
        for name in ("scales", "warps", "inner_iterations", "outer_iterations"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"TV-L1 {name} must be a whole number of at least 1, got {value!r}")
        if self.median not in (1, 3, 5):
            raise UserError(f"TV-L1 median must be 1 (none), 3 or 5, got {self.median!r}")


def _opencv(previous_NHW: Any, following_NHW: Any, settings: TVL1Settings, threads: int) -> np.ndarray:
    import cv2

    def one(pair: int) -> np.ndarray:
        # A fresh object each time: OpenCV keeps the number of scales of a small frame for later larger ones.
        solver = cv2.optflow.DualTVL1OpticalFlow_create(
            tau=settings.tau, theta=settings.theta, nscales=settings.scales, warps=settings.warps,
            epsilon=settings.epsilon, innnerIterations=settings.inner_iterations,
            outerIterations=settings.outer_iterations, scaleStep=settings.scale_step,
            medianFiltering=settings.median,
        )  # fmt: skip
        solver.setLambda(settings.lambda_)
        # OpenCV multiplies float frames by 255.
        frames = (batch_NHW[pair] / np.float32(255) for batch_NHW in (previous_NHW, following_NHW))
        return np.moveaxis(solver.calc(*frames, None), -1, 0)

    count, height, width = previous_NHW.shape
    flow_N2HW = np.empty((count, 2, height, width), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        for pair, flow_2HW in enumerate(pool.map(one, range(count))):
            flow_N2HW[pair] = flow_2HW
    return flow_N2HW


FLOWS: dict[str, Callable[..., np.ndarray]] = {"tvl1": _opencv, "tvl1_opencv": _opencv}


def compute_flow(
    previous_NHW: Any, following_NHW: Any, settings: TVL1Settings, *, algorithm: str = "tvl1",
    device: Any = None, threads: int | None = None,
) -> Any:  # fmt: skip
    """Flow from `previous` to `following` by one of `FLOWS`; arguments and result as for `tvl1_flow`."""
    if algorithm not in FLOWS:
        raise UserError(f"flow algorithm {algorithm!r} is not known; choose one of {', '.join(FLOWS)}")
    previous = np.asarray(previous_NHW, np.float32)
    following = np.asarray(following_NHW, np.float32)
    flow = FLOWS[algorithm](previous, following, settings, threads or len(os.sched_getaffinity(0)))
    if isinstance(previous_NHW, np.ndarray):
        return flow
    import torch

    return torch.from_numpy(flow)


def tvl1_flow(
    previous_NHW: Any, following_NHW: Any, *,
    device: Any = None, threads: int | None = None, **parameters: Any,
) -> Any:  # fmt: skip
    """TV-L1 flow of N gray frame pairs, (N, 2, H, W) float32 pixels; numpy in, numpy out, or torch.

    Frames are float32 of 0..255. `parameters` are the fields of `TVL1Settings`.
    """
    known = {field.name for field in fields(TVL1Settings)}
    for name in parameters:
        if name not in known:
            raise UserError(f"TV-L1 has no parameter {name!r}; it has {', '.join(sorted(known))}")
    settings = TVL1Settings(**parameters)
    return compute_flow(previous_NHW, following_NHW, settings, device=device, threads=threads)

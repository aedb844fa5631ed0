"""Parameters of TV-L1 and its pyramid."""

import math
from dataclasses import dataclass

from feature_extraction.errors import UserError

_SMALLEST_SIDE = 16  # OpenCV makes no pyramid level with a side below this


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

    def pyramid(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of each level in pixels, the finest first."""
        sizes = [(height, width)]
        while len(sizes) < self.scales:
            height, width = round(height * self.scale_step), round(width * self.scale_step)
            if min(height, width) < _SMALLEST_SIDE:
                break
            sizes.append((height, width))
        return sizes

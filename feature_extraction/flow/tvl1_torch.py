"""TV-L1 in plain PyTorch operations, batched over pairs: the way to a GPU, and a second witness on the CPU.

The steps are those of `tvl1_cpu`; every pair stops by its own error, and a stopped pair is left as it is while
others go on. On a CPU the loop looks after each iteration whether any pair still runs. A GPU is asked once a round of
inner iterations: the work queued behind the answer costs more than the iterations that it could have saved.

Shapes: N pairs, H rows, W columns, C the two flow components or the three warped images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from feature_extraction.flow.settings import TVL1Settings

_CUBIC = -0.75
_BORDER = 4
_FLAT = torch.finfo(torch.float32).eps
# Float32 planes that a pair needs at most: the median's 25 shifted copies of both components and their sorting, and
# some 60 of everything else.
PLANES = 180


@torch.no_grad()
def solve(previous_NHW: Tensor, following_NHW: Tensor, settings: TVL1Settings) -> Tensor:
    """Flow (N, 2, H, W) in pixels, on the frames' device; frames float32 of 0..255."""
    sizes = settings.pyramid(*previous_NHW.shape[1:])
    levels = [(previous_NHW.float(), following_NHW.float())]
    for size in sizes[1:]:
        ratio = 1 / settings.scale_step
        levels.append(tuple(resize(frames, size, (ratio, ratio)) for frames in levels[-1]))
    flow_NCHW = previous_NHW.new_zeros((len(previous_NHW), 2, *sizes[-1]), dtype=torch.float32)
    for size, (previous, following) in zip(reversed(sizes), reversed(levels), strict=True):
        old = flow_NCHW.shape[2:]
        if tuple(old) != size:
            flow_NCHW = resize(flow_NCHW, size, (old[0] / size[0], old[1] / size[1])) / settings.scale_step
        flow_NCHW = _level(previous, following, flow_NCHW, settings)
    return flow_NCHW


def _level(previous_NHW: Tensor, following_NHW: Tensor, flow: Tensor, settings: TVL1Settings) -> Tensor:
    height, width = previous_NHW.shape[1:]
    dual_x, dual_y = torch.zeros_like(flow), torch.zeros_like(flow)
    tolerance = settings.epsilon**2 * height * width
    images_NCHW = with_gradients(following_NHW)
    for _ in range(settings.warps):
        warped = _warp(images_NCHW, flow)
        slope = warped[:, 1:]
        squared = (slope * slope).sum(1, keepdim=True).clamp_min(_FLAT)
        constant = (warped[:, 0] - (slope * flow).sum(1) - previous_NHW)[:, None]
        running = torch.ones((len(flow), 1, 1, 1), dtype=torch.bool, device=flow.device)
        for _ in range(settings.outer_iterations):
            if not running.any():
                break
            flow = torch.where(running, _median(flow, settings.median), flow)
            for _ in range(settings.inner_iterations):
                new, new_x, new_y = _iterate(flow, dual_x, dual_y, slope, squared, constant, settings)
                error = (new - flow).square().sum((1, 2, 3), keepdim=True)
                flow = torch.where(running, new, flow)
                dual_x, dual_y = torch.where(running, new_x, dual_x), torch.where(running, new_y, dual_y)
                running = running & (error > tolerance)
                if flow.device.type == "cpu" and not running.any():
                    break
    return flow


def _iterate(
    flow: Tensor, dual_x: Tensor, dual_y: Tensor, slope: Tensor, squared: Tensor, constant: Tensor,
    settings: TVL1Settings,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One primal and one dual step; the threshold step is a clamp."""
    limit = settings.lambda_ * settings.theta
    step = ((constant + (slope * flow).sum(1, keepdim=True)) / -squared).clamp(-limit, limit)
    divergence = (dual_x - F.pad(dual_x[..., :-1], (1, 0))) + (dual_y - F.pad(dual_y[..., :-1, :], (0, 0, 1, 0)))
    flow = flow + step * slope + settings.theta * divergence
    tau = settings.tau / settings.theta
    along_x = tau * F.pad(flow[..., 1:] - flow[..., :-1], (0, 1))
    along_y = tau * F.pad(flow[..., 1:, :] - flow[..., :-1, :], (0, 0, 0, 1))
    norm = 1 + (along_x.square() + along_y.square()).sqrt()
    return flow, (dual_x + along_x) / norm, (dual_y + along_y) / norm


def with_gradients(frames_NHW: Tensor) -> Tensor:
    """The frames and their centred gradients along x and y: (N, 3, H, W)."""
    padded = _pad(frames_NHW, 1)
    along_x = 0.5 * (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
    along_y = 0.5 * (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    return torch.stack([frames_NHW, along_x, along_y], dim=1)


def resize(frames: Tensor, size: tuple[int, int], ratio: tuple[float, float]) -> Tensor:
    """Bilinear resize of the last two axes as `cv2.resize` does it; `ratio` is source per target pixels."""
    for axis in (-1, -2):
        length = frames.shape[axis]
        position = (torch.arange(size[axis], dtype=torch.float64, device=frames.device) + 0.5) * ratio[axis] - 0.5
        first = position.floor()
        weight = torch.where((first < 0) | (first >= length - 1), 0.0, position - first).float()
        first = first.long().clamp(0, length - 1)
        second = (first + 1).clamp(max=length - 1)
        if axis == -2:
            weight = weight[:, None]
        frames = frames.index_select(axis, first) * (1 - weight) + frames.index_select(axis, second) * weight
    return frames


def _cubic(part: Tensor) -> list[Tensor]:
    """Weights of the four taps at a fraction `part` beyond the second one."""
    a, square = _CUBIC, part * part
    before = a * part * (1 - part) * (1 - part)
    here = 1 - (a + 3) * square + (a + 2) * square * part
    last = a * square * (1 - part)
    return [before, here, 1 - before - here - last, last]


def _warp(images_NCHW: Tensor, flow_NCHW: Tensor) -> Tensor:
    """Cubic samples at `x + u`; outside of the image lies zero."""
    count, channels, height, width = images_NCHW.shape
    flat = F.pad(images_NCHW, (_BORDER,) * 4).flatten(2)
    stride = width + 2 * _BORDER
    x = torch.arange(width, device=flat.device, dtype=torch.float32) + flow_NCHW[:, 0]
    y = torch.arange(height, device=flat.device, dtype=torch.float32)[:, None] + flow_NCHW[:, 1]
    x, y = x.clamp(1 - _BORDER, width + _BORDER - 3), y.clamp(1 - _BORDER, height + _BORDER - 3)
    column, line = x.floor(), y.floor()
    weights_x, weights_y = _cubic(x - column), _cubic(y - line)
    corner = (line.long() - 1 + _BORDER) * stride + column.long() - 1 + _BORDER
    total = torch.zeros_like(images_NCHW)
    for row in range(4):
        for tap in range(4):
            index = (corner + row * stride + tap).flatten(1)[:, None].expand(-1, channels, -1)
            value = flat.gather(2, index).view_as(total)
            total += (weights_y[row] * weights_x[tap])[:, None] * value
    return total


def _pad(frames: Tensor, sides: int) -> Tensor:
    """Repeat the edges of the last two axes."""
    return F.pad(frames.flatten(0, -3)[:, None], (sides,) * 4, mode="replicate").reshape(
        *frames.shape[:-2], frames.shape[-2] + 2 * sides, frames.shape[-1] + 2 * sides
    )


def _median(flow_NCHW: Tensor, side: int) -> Tensor:
    """Median of `side` x `side` pixels, edges repeated."""
    if side == 1:
        return flow_NCHW
    height, width = flow_NCHW.shape[2:]
    padded = _pad(flow_NCHW, side // 2)
    shifted = [padded[..., y : y + height, x : x + width] for y in range(side) for x in range(side)]
    return torch.stack(shifted).median(0).values

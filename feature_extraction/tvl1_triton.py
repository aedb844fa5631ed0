"""TV-L1 on a GPU in Triton: one program per frame pair runs all warps of a pyramid level on the device.

The steps are those of `tvl1_cpu`, sums and products in OpenCV's order. A program loops over the tiles of its frame;
between the steps it waits at a barrier of its own threads only. It sums its own error and leaves its own loops, so the
host is never asked, a pair that has stopped costs nothing more, and no pair depends on the rest of the batch.

The dual step at a pixel needs the new flow there, right of it and below. An iteration computes these three again
from the old flow and dual variable instead of waiting for its neighbours, reads one copy of flow and dual variable
and writes the other: one sweep and one barrier an iteration.

Counted, not measured: a sweep reads flow (2), dual variable (4) and data term (3: the warped gradient and the constant
part) and writes flow and dual variable (6), so 15 floats or 60 bytes a pixel, as neighbours come from the cache; an
in-place scheme of two sweeps moves 84. The median reads and writes 4 floats once a round. The workspace of a pair is
15 planes, its pyramid and gradients some 7 more: 7.7 MB at 340 x 256, so no cache holds a batch. Real clips take 16 to
46 million pixel iterations a pair there (mean of three clips 27), which is 1 to 2.8 GB: 4.8 TB/s bound that to 1,700
to 5,000 pairs/s. A program runs on one multiprocessor; batches below twice their number leave a part of the GPU idle.

Shapes: N pairs, H rows, W columns, C the two flow components or the three warped images.
"""

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from feature_extraction.tvl1_torch import resize, with_gradients

if TYPE_CHECKING:
    from feature_extraction.flow import TVL1Settings

# Pixels of a tile and warps of 32 threads: a pixel a thread.
_BLOCK, _WARPS = 512, 16
PLANES = 36  # float32 planes that a pair needs at most, all levels' frames and PyTorch's temporary ones with them
# Planes of a pair: two copies of the flow (2 each), two of the dual variable p11, p12, p21, p22, then the data term:
# warped gradient along x, along y, constant part of the residual.
_PLANES = tl.constexpr(15)
_DUAL, _DATA = tl.constexpr(4), tl.constexpr(12)
_CUBIC = tl.constexpr(-0.75)  # OpenCV's parameter of cubic interpolation
_BORDER = tl.constexpr(4)  # positions further outside read only zeros
_FLAT = tl.constexpr(torch.finfo(torch.float32).eps)  # squared gradient below which OpenCV does not divide


@triton.jit
def _hypot(x, y):
    """sqrt(x^2 + y^2), rounded once like the double precision that OpenCV takes here, without its cost on a GPU."""
    high, other = x * x, y * y
    total = high + other
    part = total - high
    lost = (high - (total - part)) + (other - part)
    lost += tl.math.fma(x, x, -high) + tl.math.fma(y, y, -other)
    root = tl.math.sqrt_rn(total)
    rest = tl.math.fma(-root, root, total) + lost
    return tl.where(total > 1e-30, root + rest / (2 * tl.where(total > 1e-30, root, 1.0)), root)


@triton.jit
def _primal(old1, old2, slope1, slope2, constant, divergence1, divergence2, limit, theta):
    """Threshold step and u = v + theta div p."""
    squared = slope1 * slope1 + slope2 * slope2
    residual = constant + (slope1 * old1 + slope2 * old2)
    steep = squared > _FLAT
    within = tl.where(steep, tl.math.div_rn(-residual, tl.where(steep, squared, 1.0)), 0.0)
    bound = limit * squared
    step = tl.where(residual < -bound, limit, tl.where(residual > bound, -limit, within))
    return (old1 + step * slope1) + theta * divergence1, (old2 + step * slope2) + theta * divergence2


@triton.jit
def _divergences(p1, p2, here, width, valid, left, right, up, below):
    """div p at the pixels `here`, right of them and below; then p itself. `p1`, `p2`: the planes."""
    c1, c2 = tl.load(p1 + here, valid, 0.0), tl.load(p2 + here, valid, 0.0)
    left1, up2 = tl.load(p1 + here - 1, left, 0.0), tl.load(p2 + here - width, up, 0.0)
    right1, right2 = tl.load(p1 + here + 1, right, 0.0), tl.load(p2 + here + 1, right, 0.0)
    below1, below2 = tl.load(p1 + here + width, below, 0.0), tl.load(p2 + here + width, below, 0.0)
    up_right2 = tl.load(p2 + here + 1 - width, right & up, 0.0)
    below_left1 = tl.load(p1 + here + width - 1, below & left, 0.0)
    # OpenCV sums in another order in the first column.
    at_here = tl.where(left, (c1 - left1) + (c2 - up2), (c1 + c2) - up2)
    at_right = (right1 - c1) + (right2 - up_right2)
    at_below = tl.where(left, (below1 - below_left1) + (below2 - c2), (below1 + below2) - c2)
    return at_here, at_right, at_below, c1, c2


@triton.jit
def _dual(p1, p2, along_x, along_y, taut):
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|)."""
    norm = 1.0 + taut * _hypot(along_x, along_y)
    return tl.math.div_rn(p1 + taut * along_x, norm), tl.math.div_rn(p2 + taut * along_y, norm)


@triton.jit
def _iterate(flow, dual, data, new_flow, new_dual, height, width, taut, limit, theta, BLOCK: tl.constexpr):
    """One iteration over the frame from one copy to the other; returns the sum of squared changes of the flow."""
    size = height * width
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, size, BLOCK):
        here = start + tl.arange(0, BLOCK)
        y = here // width
        x = here - y * width
        valid = here < size
        left, right, up, below = valid & (x > 0), valid & (x < width - 1), valid & (y > 0), valid & (y < height - 1)
        u1, u2 = tl.load(flow + here, valid, 0.0), tl.load(flow + size + here, valid, 0.0)
        divergence1, right1, below1, p11, p12 = _divergences(
            dual, dual + size, here, width, valid, left, right, up, below
        )
        divergence2, right2, below2, p21, p22 = _divergences(
            dual + 2 * size, dual + 3 * size, here, width, valid, left, right, up, below
        )
        new1, new2 = _primal(
            u1, u2, tl.load(data + here, valid, 0.0), tl.load(data + size + here, valid, 0.0),
            tl.load(data + 2 * size + here, valid, 0.0), divergence1, divergence2, limit, theta,
        )  # fmt: skip
        beside = here + 1
        right1, right2 = _primal(
            tl.load(flow + beside, right, 0.0), tl.load(flow + size + beside, right, 0.0),
            tl.load(data + beside, right, 0.0), tl.load(data + size + beside, right, 0.0),
            tl.load(data + 2 * size + beside, right, 0.0), right1, right2, limit, theta,
        )  # fmt: skip
        under = here + width
        below1, below2 = _primal(
            tl.load(flow + under, below, 0.0), tl.load(flow + size + under, below, 0.0),
            tl.load(data + under, below, 0.0), tl.load(data + size + under, below, 0.0),
            tl.load(data + 2 * size + under, below, 0.0), below1, below2, limit, theta,
        )  # fmt: skip
        p11, p12 = _dual(p11, p12, tl.where(right, right1 - new1, 0.0), tl.where(below, below1 - new1, 0.0), taut)
        p21, p22 = _dual(p21, p22, tl.where(right, right2 - new2, 0.0), tl.where(below, below2 - new2, 0.0), taut)
        tl.store(new_flow + here, new1, valid)
        tl.store(new_flow + size + here, new2, valid)
        tl.store(new_dual + here, p11, valid)
        tl.store(new_dual + size + here, p12, valid)
        tl.store(new_dual + 2 * size + here, p21, valid)
        tl.store(new_dual + 3 * size + here, p22, valid)
        total += (new1 - u1) * (new1 - u1) + (new2 - u2) * (new2 - u2)
    return tl.sum(total)


@triton.jit
def _sorted3(a, b, c):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    return a, b, c


@triton.jit
def _sorted5(a, b, c, d, e):
    a, d = tl.minimum(a, d), tl.maximum(a, d)
    b, e = tl.minimum(b, e), tl.maximum(b, e)
    a, c = tl.minimum(a, c), tl.maximum(a, c)
    b, d = tl.minimum(b, d), tl.maximum(b, d)
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    c, e = tl.minimum(c, e), tl.maximum(c, e)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    d, e = tl.minimum(d, e), tl.maximum(d, e)
    c, d = tl.minimum(c, d), tl.maximum(c, d)
    return a, b, c, d, e


@triton.jit
def _column3(plane, x, y0, y1, y2, width, valid):
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    return _sorted3(
        tl.load(plane + y0 + x, valid, 0.0), tl.load(plane + y1 + x, valid, 0.0), tl.load(plane + y2 + x, valid, 0.0)
    )


@triton.jit
def _column5(plane, x, y0, y1, y2, y3, y4, width, valid):
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    return _sorted5(
        tl.load(plane + y0 + x, valid, 0.0), tl.load(plane + y1 + x, valid, 0.0),
        tl.load(plane + y2 + x, valid, 0.0), tl.load(plane + y3 + x, valid, 0.0),
        tl.load(plane + y4 + x, valid, 0.0),
    )  # fmt: skip


@triton.jit
def _median(plane, out, height, width, MEDIAN: tl.constexpr, BLOCK: tl.constexpr):
    """Median of MEDIAN x MEDIAN pixels, edges repeated: the scheme of `simd_median`."""
    size = height * width
    for start in range(0, size, BLOCK):
        here = start + tl.arange(0, BLOCK)
        y = here // width
        x = here - y * width
        valid = here < size
        last = height - 1
        y1, y2, y3 = tl.maximum(y - 1, 0) * width, y * width, tl.minimum(y + 1, last) * width
        if MEDIAN == 3:
            a0, b0, c0 = _column3(plane, x - 1, y1, y2, y3, width, valid)
            a1, b1, c1 = _column3(plane, x, y1, y2, y3, width, valid)
            a2, b2, c2 = _column3(plane, x + 1, y1, y2, y3, width, valid)
            low = tl.maximum(tl.maximum(a0, a1), a2)
            middle = _sorted3(b0, b1, b2)[1]
            high = tl.minimum(tl.minimum(c0, c1), c2)
        else:
            y0, y4 = tl.maximum(y - 2, 0) * width, tl.minimum(y + 2, last) * width
            a0, b0, c0, d0, e0 = _column5(plane, x - 2, y0, y1, y2, y3, y4, width, valid)
            a1, b1, c1, d1, e1 = _column5(plane, x - 1, y0, y1, y2, y3, y4, width, valid)
            a2, b2, c2, d2, e2 = _column5(plane, x, y0, y1, y2, y3, y4, width, valid)
            a3, b3, c3, d3, e3 = _column5(plane, x + 1, y0, y1, y2, y3, y4, width, valid)
            a4, b4, c4, d4, e4 = _column5(plane, x + 2, y0, y1, y2, y3, y4, width, valid)
            a0, a1, a2, a3, a4 = _sorted5(a0, a1, a2, a3, a4)
            b0, b1, b2, b3, b4 = _sorted5(b0, b1, b2, b3, b4)
            c0, c1, c2, c3, c4 = _sorted5(c0, c1, c2, c3, c4)
            d0, d1, d2, d3, d4 = _sorted5(d0, d1, d2, d3, d4)
            e0, e1, e2, e3, e4 = _sorted5(e0, e1, e2, e3, e4)
            low = tl.maximum(tl.maximum(a3, b2), tl.maximum(c1, d0))
            high = tl.minimum(tl.minimum(b4, c3), tl.minimum(d2, e1))
            middle = _sorted5(a4, b3, c2, d1, e0)[2]
        tl.store(out + here, _sorted3(low, middle, high)[1], valid)


@triton.jit
def _position(pixel, motion, length):
    """Whole position, clamped to where every tap is zero, and the fraction beyond it."""
    place = pixel.to(tl.float32) + motion
    place = tl.minimum(tl.maximum(place, 1.0 - _BORDER), (length + (_BORDER - 3)).to(tl.float32))
    whole = tl.floor(place)
    return whole.to(tl.int32), place - whole


@triton.jit
def _tap(image, row, column, height, width, valid):
    inside = valid & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return tl.load(image + row * width + column, inside, 0.0)


@triton.jit
def _column(image, line, column, before, here, after, last, height, width, valid):
    """Cubic sum of four pixels of a column."""
    total = before * _tap(image, line - 1, column, height, width, valid)
    total += here * _tap(image, line, column, height, width, valid)
    total += after * _tap(image, line + 1, column, height, width, valid)
    return total + last * _tap(image, line + 2, column, height, width, valid)


@triton.jit
def _warp(flow, data, still, images, height, width, BLOCK: tl.constexpr):
    """Cubic warp of image and gradients, zero outside; fills the data planes."""
    size = height * width
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y = at // width
        x = at - y * width
        valid = at < size
        u1, u2 = tl.load(flow + at, valid, 0.0), tl.load(flow + size + at, valid, 0.0)
        column, t = _position(x, u1, width)
        line, s = _position(y, u2, height)
        before = _CUBIC * s * (1.0 - s) * (1.0 - s)
        here = 1.0 - (_CUBIC + 3) * (s * s) + (_CUBIC + 2) * (s * s) * s
        last = _CUBIC * (s * s) * (1.0 - s)
        after = 1.0 - before - here - last
        x0 = ((_CUBIC * t - 2 * _CUBIC) * t + _CUBIC) * t
        x1 = ((_CUBIC + 2) * t - (_CUBIC + 3)) * t * t + 1.0
        x2 = ((-_CUBIC - 2) * t + (2 * _CUBIC + 3)) * t * t - _CUBIC * t
        x3 = (-_CUBIC * t + _CUBIC) * t * t
        warped = tl.zeros([BLOCK], tl.float32)
        slope1 = tl.zeros([BLOCK], tl.float32)
        slope2 = tl.zeros([BLOCK], tl.float32)
        for k in tl.static_range(3):
            image = images + k * size
            t0 = x0 * _column(image, line, column - 1, before, here, after, last, height, width, valid)
            t1 = x1 * _column(image, line, column, before, here, after, last, height, width, valid)
            t2 = x2 * _column(image, line, column + 1, before, here, after, last, height, width, valid)
            t3 = x3 * _column(image, line, column + 2, before, here, after, last, height, width, valid)
            total = (t0 + t2) + (t1 + t3)
            if k == 0:
                warped = total
            elif k == 1:
                slope1 = total
            else:
                slope2 = total
        constant = warped - slope1 * u1 - slope2 * u2 - tl.load(still + at, valid, 0.0)
        tl.store(data + at, slope1, valid)
        tl.store(data + size + at, slope2, valid)
        tl.store(data + 2 * size + at, constant, valid)


@triton.jit(do_not_specialize=["height", "width", "warps", "outer", "inner"])
def _level(
    planes, still, images, work, height, width, warps, outer, inner, taut, limit, theta, tolerance,
    MEDIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All warps of a level for one pair. Flow and dual variable start and end in their first copy."""
    size = height * width
    pair = tl.program_id(0).to(tl.int64)
    planes += pair * (_PLANES * size)
    still += pair * size
    images += pair * (3 * size)
    data = planes + _DATA * size
    # Where the present copies start and how far the other ones are.
    flow, dual = 0 * size, _DUAL * size
    other_flow, other_dual = 2 * size, (_DUAL + 4) * size
    iterations = 0
    for _ in range(warps):
        _warp(planes + flow, data, still, images, height, width, BLOCK)
        tl.debug_barrier()
        running = True
        round = 0
        while running & (round < outer):
            if MEDIAN > 1:
                _median(planes + flow, planes + other_flow, height, width, MEDIAN, BLOCK)
                _median(planes + flow + size, planes + other_flow + size, height, width, MEDIAN, BLOCK)
                tl.debug_barrier()
                flow, other_flow = other_flow, flow
            step = 0
            while running & (step < inner):
                error = _iterate(
                    planes + flow, planes + dual, data, planes + other_flow, planes + other_dual,
                    height, width, taut, limit, theta, BLOCK,
                )  # fmt: skip
                tl.debug_barrier()
                flow, other_flow = other_flow, flow
                dual, other_dual = other_dual, dual
                running = error > tolerance
                step += 1
            iterations += step
            round += 1
    if flow > 0:
        for start in range(0, 2 * size, BLOCK):
            here = start + tl.arange(0, BLOCK)
            tl.store(planes + here, tl.load(planes + flow + here, here < 2 * size), here < 2 * size)
    tl.store(work + pair, tl.load(work + pair) + iterations.to(tl.int64) * size)


@torch.no_grad()
def solve(previous_NHW: Tensor, following_NHW: Tensor, settings: "TVL1Settings") -> tuple[Tensor, Tensor]:
    """Flow (N, 2, H, W) in pixels and the work of each pair: pixels times iterations, over all levels.

    Frames are float32 of 0..255 on a CUDA device, or on the CPU where Triton interprets (`TRITON_INTERPRET=1`).
    """
    count, device = len(previous_NHW), previous_NHW.device
    sizes = settings.pyramid(*previous_NHW.shape[1:])
    levels = [(previous_NHW.float(), following_NHW.float())]
    for size in sizes[1:]:
        ratio = 1 / settings.scale_step
        levels.append(tuple(resize(frames, size, (ratio, ratio)) for frames in levels[-1]))
    flow_NCHW = torch.zeros((count, 2, *sizes[-1]), device=device)
    work_N = torch.zeros(count, dtype=torch.int64, device=device)
    for size, (previous, following) in zip(reversed(sizes), reversed(levels), strict=True):
        old = flow_NCHW.shape[2:]
        if tuple(old) != size:
            flow_NCHW = resize(flow_NCHW, size, (old[0] / size[0], old[1] / size[1])) / settings.scale_step
        planes_NCHW = torch.zeros((count, _PLANES.value, *size), device=device)
        planes_NCHW[:, :2] = flow_NCHW
        if count:
            _level[(count,)](
                planes_NCHW, previous.contiguous(), with_gradients(following), work_N, *size, settings.warps,
                settings.outer_iterations, settings.inner_iterations, settings.tau / settings.theta,
                settings.lambda_ * settings.theta, settings.theta, settings.epsilon**2 * size[0] * size[1],
                MEDIAN=settings.median, BLOCK=_BLOCK, num_warps=_WARPS, num_stages=1, enable_fp_fusion=False,
            )  # fmt: skip
        flow_NCHW = planes_NCHW[:, :2]
    return flow_NCHW.contiguous(), work_N

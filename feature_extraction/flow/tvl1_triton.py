"""TV-L1 on a GPU in Triton: one program per frame pair runs all warps of a pyramid level on the device.

The steps are those of `tvl1_cpu`, sums and products in OpenCV's order. A program loops over the tiles of its frame;
between the steps it waits at a barrier of its own threads only. It sums its own error and leaves its own loops, so the
host is never asked, a pair that has stopped costs nothing more, and no pair depends on the rest of the batch.

The dual step at a pixel needs the new flow there, right of it and below. An iteration computes these three again
from the old flow and dual variable instead of waiting for its neighbours, reads one copy of flow and dual variable
and writes the other: one sweep and one barrier an iteration.

Counted, not measured. A sweep reads flow (2), dual variable (4) and data term (3: warped gradient and constant part)
and writes flow and dual variable (6): 15 floats or 60 bytes a pixel, as neighbours come from the cache; an in-place
scheme of two sweeps moves 84. The median reads and writes 4 floats once a round. These 15 planes are 5.2 MB a pair at
340 x 256: no second-level cache holds the pairs that run at a time. Real clips take 16 to 46 million pixel iterations
a pair there (mean of three clips 27), 1 to 2.8 GB: 4.8 TB/s bound that to 1,700 to 5,000 pairs/s, 2,900 for the mean.
Compiled for compute capability 9.0 an iteration is 310 instructions a pixel, without spills; 132 multiprocessors at
1.75 GHz issue 95 thousand million of them a second at most, the memory serves 80. A program runs on one
multiprocessor: a batch of fewer pairs than the GPU has of these leaves the others idle.

Shapes: N pairs, H rows, W columns, C the two flow components or the three warped images.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from feature_extraction.flow.settings import TVL1Settings
from feature_extraction.flow.tvl1_torch import with_gradients

PLANES = 56  # float32 planes that a pair needs at most, all levels' frames and PyTorch's temporary ones with them
_BLOCK, _WARPS = 1024, 32  # pixels of a tile and warps of 32 threads: a pixel a thread
# Relative error of a float32 sum of numbers above zero, for each of them: OpenCV's way of adding and this one together.
_DOUBT = 2.0**-23
# Planes of a pair: two copies of the flow (2 each), two of the dual variable p11, p12, p21, p22, then the data term:
# warped gradient along x, along y, constant part of the residual.
_COUNT = tl.constexpr(15)
_DUAL, _DATA = tl.constexpr(4), tl.constexpr(12)
_CUBIC = tl.constexpr(-0.75)  # OpenCV's parameter of cubic interpolation
_BORDER = tl.constexpr(4)  # positions further outside read only zeros
_FLAT = tl.constexpr(torch.finfo(torch.float32).eps)  # squared gradient up to which OpenCV does not divide


@triton.jit
def _hypot(x, y):
    """sqrt(x^2 + y^2) rounded once, like `hypotf`, in pairs of float32: many GPUs are slow in double precision.

    What the squares and their sum lost corrects the root in one step of Newton's method. Below 1e-15 zero.
    """
    high, other = x * x, y * y
    total = high + other
    part = total - high
    lost = (high - (total - part)) + (other - part)
    lost += tl.math.fma(x, x, -high) + tl.math.fma(y, y, -other)
    safe = tl.maximum(total, 1e-30)
    inverse = tl.math.rsqrt(safe)
    root = safe * inverse
    rest = tl.math.fma(-root, root, safe) + lost
    return tl.where(total > 1e-30, tl.math.fma(rest, 0.5 * inverse, root), 0.0)


@triton.jit
def _inverse(x):
    """1 / x rounded to nearest for x of 1e-15 to 1e15 without the branches that division has for all others."""
    root = tl.math.rsqrt(x)
    near = root * root
    return tl.math.fma(near, tl.math.fma(-x, near, 1.0), near)


@triton.jit
def _quotient(a, b, inverse):
    """a / b rounded to nearest (Markstein 1990); `inverse` is that of b."""
    near = a * inverse
    return tl.math.fma(tl.math.fma(-b, near, a), inverse, near)


@triton.jit
def _primal(old1, old2, slope1, slope2, constant, divergence1, divergence2, limit, theta):
    """Threshold step and u = v + theta div p."""
    squared = slope1 * slope1 + slope2 * slope2
    residual = constant + (slope1 * old1 + slope2 * old2)
    safe = tl.maximum(squared, _FLAT)
    within = tl.where(squared > _FLAT, _quotient(-residual, safe, _inverse(safe)), 0.0)
    bound = limit * squared
    step = tl.where(residual < -bound, limit, tl.where(residual > bound, -limit, within))
    return (old1 + step * slope1) + theta * divergence1, (old2 + step * slope2) + theta * divergence2


@triton.jit
def _divergences(p1, p2, pitch, is_first):
    """div p at the pixels at `p1` and `p2`, right of them and below; then p itself."""
    c1, c2 = tl.load(p1), tl.load(p2)
    up2, below1 = tl.load(p2 - pitch), tl.load(p1 + pitch)
    # OpenCV sums in another order in the first column.
    at_here = tl.where(is_first, (c1 + c2) - up2, (c1 - tl.load(p1 - 1)) + (c2 - up2))
    at_right = (tl.load(p1 + 1) - c1) + (tl.load(p2 + 1) - tl.load(p2 + 1 - pitch))
    below2 = tl.load(p2 + pitch)
    at_below = tl.where(is_first, (below1 + below2) - c2, (below1 - tl.load(p1 + pitch - 1)) + (below2 - c2))
    return at_here, at_right, at_below, c1, c2


@triton.jit
def _dual(p1, p2, along_x, along_y, taut):
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|)."""
    norm = 1.0 + taut * _hypot(along_x, along_y)
    inverse = _inverse(norm)
    return _quotient(p1 + taut * along_x, norm, inverse), _quotient(p2 + taut * along_y, norm, inverse)


@triton.jit
def _iterate(flow, dual, data, new_flow, new_dual, height, pitch, plane, taut, limit, theta, BLOCK: tl.constexpr):
    """One iteration over the frame from one copy to the other; returns the sum of squared changes of the flow."""
    lanes = tl.arange(0, BLOCK)
    x = lanes % pitch
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, height * pitch, BLOCK):
        here = start + lanes
        is_first, has_right, has_below = x == 0, x < pitch - 2, here < (height - 1) * pitch
        u1, u2 = tl.load(flow + here), tl.load(flow + plane + here)
        at = dual + here
        here1, right1, below1, p11, p12 = _divergences(at, at + plane, pitch, is_first)
        here2, right2, below2, p21, p22 = _divergences(at + 2 * plane, at + 3 * plane, pitch, is_first)
        at = data + here
        slope1, slope2, constant = tl.load(at), tl.load(at + plane), tl.load(at + 2 * plane)
        new1, new2 = _primal(u1, u2, slope1, slope2, constant, here1, here2, limit, theta)
        at, term = flow + here + 1, data + here + 1
        right1, right2 = _primal(
            tl.load(at), tl.load(at + plane), tl.load(term), tl.load(term + plane), tl.load(term + 2 * plane),
            right1, right2, limit, theta,
        )  # fmt: skip
        at, term = flow + here + pitch, data + here + pitch
        below1, below2 = _primal(
            tl.load(at), tl.load(at + plane), tl.load(term), tl.load(term + plane), tl.load(term + 2 * plane),
            below1, below2, limit, theta,
        )  # fmt: skip
        x1, y1 = tl.where(has_right, right1 - new1, 0.0), tl.where(has_below, below1 - new1, 0.0)
        x2, y2 = tl.where(has_right, right2 - new2, 0.0), tl.where(has_below, below2 - new2, 0.0)
        p11, p12 = _dual(p11, p12, x1, y1, taut)
        p21, p22 = _dual(p21, p22, x2, y2, taut)
        tl.store(new_flow + here, new1)
        tl.store(new_flow + plane + here, new2)
        at = new_dual + here
        tl.store(at, p11)
        tl.store(at + plane, p12)
        tl.store(at + 2 * plane, p21)
        tl.store(at + 3 * plane, p22)
        total += (new1 - u1) * (new1 - u1) + (new2 - u2) * (new2 - u2)
        x += BLOCK % pitch
        x = tl.where(x < pitch, x, x - pitch)
    return tl.sum(total)


@triton.jit
def _one_after_another(old, new, height, pitch, plane, BLOCK: tl.constexpr):
    """Sum of the squared changes as OpenCV adds them, pixel by pixel in float32; they take the place of `old`."""
    for start in range(0, height * pitch, BLOCK):
        at = start + tl.arange(0, BLOCK)
        change1 = tl.load(new + at) - tl.load(old + at)
        change2 = tl.load(new + plane + at) - tl.load(old + plane + at)
        tl.store(old + at, change1 * change1 + change2 * change2)
    tl.debug_barrier()
    total = 0.0
    for at in tl.range(0, height * pitch, loop_unroll_factor=16):
        total += tl.load(old + at)
    tl.debug_barrier()
    return total


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
def _column3(at, x, width, y0, y1, y2):
    at += tl.minimum(tl.maximum(x, 0), width - 1)
    return _sorted3(tl.load(at + y0), tl.load(at + y1), tl.load(at + y2))


@triton.jit
def _column5(at, x, width, y0, y1, y2, y3, y4):
    at += tl.minimum(tl.maximum(x, 0), width - 1)
    return _sorted5(tl.load(at + y0), tl.load(at + y1), tl.load(at + y2), tl.load(at + y3), tl.load(at + y4))


@triton.jit
def _median(source, out, height, pitch, MEDIAN: tl.constexpr, BLOCK: tl.constexpr):
    """Median of MEDIAN x MEDIAN pixels, edges repeated: the scheme of `simd_median`."""
    width, last = pitch - 1, height - 1
    for start in range(0, height * pitch, BLOCK):
        here = start + tl.arange(0, BLOCK)
        y = here // pitch
        x = here - y * pitch
        y1, y2, y3 = tl.minimum(tl.maximum(y - 1, 0), last), tl.minimum(y, last), tl.minimum(y + 1, last)
        y1, y2, y3 = y1 * pitch, y2 * pitch, y3 * pitch
        if MEDIAN == 3:
            a0, b0, c0 = _column3(source, x - 1, width, y1, y2, y3)
            a1, b1, c1 = _column3(source, x, width, y1, y2, y3)
            a2, b2, c2 = _column3(source, x + 1, width, y1, y2, y3)
            low = tl.maximum(tl.maximum(a0, a1), a2)
            middle = _sorted3(b0, b1, b2)[1]
            high = tl.minimum(tl.minimum(c0, c1), c2)
        else:
            y0, y4 = tl.minimum(tl.maximum(y - 2, 0), last) * pitch, tl.minimum(y + 2, last) * pitch
            a0, b0, c0, d0, e0 = _column5(source, x - 2, width, y0, y1, y2, y3, y4)
            a1, b1, c1, d1, e1 = _column5(source, x - 1, width, y0, y1, y2, y3, y4)
            a2, b2, c2, d2, e2 = _column5(source, x, width, y0, y1, y2, y3, y4)
            a3, b3, c3, d3, e3 = _column5(source, x + 1, width, y0, y1, y2, y3, y4)
            a4, b4, c4, d4, e4 = _column5(source, x + 2, width, y0, y1, y2, y3, y4)
            a0, a1, a2, a3, a4 = _sorted5(a0, a1, a2, a3, a4)
            b0, b1, b2, b3, b4 = _sorted5(b0, b1, b2, b3, b4)
            c0, c1, c2, c3, c4 = _sorted5(c0, c1, c2, c3, c4)
            d0, d1, d2, d3, d4 = _sorted5(d0, d1, d2, d3, d4)
            e0, e1, e2, e3, e4 = _sorted5(e0, e1, e2, e3, e4)
            low = tl.maximum(tl.maximum(a3, b2), tl.maximum(c1, d0))
            high = tl.minimum(tl.minimum(b4, c3), tl.minimum(d2, e1))
            middle = _sorted5(a4, b3, c2, d1, e0)[2]
        tl.store(out + here, _sorted3(low, middle, high)[1], (x < width) & (here < height * pitch))


@triton.jit
def _place_and_weights(place, length):
    """Whole position, clamped to where every tap is zero, and the cubic weights of four taps."""
    place = tl.minimum(place, (length + (_BORDER - 3)).to(tl.float32))
    place = tl.maximum(place, 1.0 - _BORDER)
    whole = tl.floor(place)
    part = place - whole
    rest, square = 1.0 - part, part * part
    before = _CUBIC * (part * (rest * rest))
    here = tl.math.fma(tl.math.fma(tl.full(part.shape, 1.25, tl.float32), part, -2.25), square, 1.0)
    last = _CUBIC * (square * rest)
    return whole.to(tl.int32), before, here, 1.0 - before - here - last, last


@triton.jit
def _tap(image, row, column, height, pitch):
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < pitch - 1)
    return tl.load(image + row * pitch + column, inside, 0.0)


@triton.jit
def _tap_row(image, row, column, w0, w1, w2, w3, height, pitch):
    total = _tap(image, row, column - 1, height, pitch) * w0
    total = tl.math.fma(_tap(image, row, column, height, pitch), w1, total)
    total = tl.math.fma(_tap(image, row, column + 1, height, pitch), w2, total)
    return tl.math.fma(_tap(image, row, column + 2, height, pitch), w3, total)


@triton.jit
def _warp(flow, data, frames, height, pitch, plane, BLOCK: tl.constexpr):
    """Cubic warp of image and gradients, zero outside; fills the data planes."""
    size = height * pitch
    for start in range(0, size, BLOCK):
        here = start + tl.arange(0, BLOCK)
        y = here // pitch
        x = here - y * pitch
        valid = (x < pitch - 1) & (here < size)
        u1, u2 = tl.load(flow + here), tl.load(flow + plane + here)
        column, x0, x1, x2, x3 = _place_and_weights(x.to(tl.float32) + u1, pitch - 1)
        line, y0, y1, y2, y3 = _place_and_weights(y.to(tl.float32) + u2, height)
        constant = tl.zeros([BLOCK], tl.float32)
        for k in tl.static_range(3):
            image = frames + (k + 1) * size
            total = _tap_row(image, line - 1, column, x0, x1, x2, x3, height, pitch) * y0
            total = tl.math.fma(_tap_row(image, line, column, x0, x1, x2, x3, height, pitch), y1, total)
            total = tl.math.fma(_tap_row(image, line + 1, column, x0, x1, x2, x3, height, pitch), y2, total)
            total = tl.math.fma(_tap_row(image, line + 2, column, x0, x1, x2, x3, height, pitch), y3, total)
            if k == 0:
                constant = total
            elif k == 1:
                constant -= total * u1
                tl.store(data + here, total, valid)
            else:
                constant -= total * u2
                tl.store(data + plane + here, total, valid)
        constant -= tl.load(frames + here, valid, 0.0)
        tl.store(data + 2 * plane + here, constant, valid)


@triton.jit(do_not_specialize=["plane", "height", "pitch", "warps", "outer", "inner"])
def _level(
    planes, frames, work, plane, height, pitch, warps, outer, inner, taut, limit, theta, tolerance, doubt,
    MEDIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All warps of a level for one pair. Flow and dual variable start and end in their first copy.

    An error nearer to the tolerance than `doubt`, relative to itself, is added again as OpenCV does.
    """
    pair = tl.program_id(0).to(tl.int64)
    size = height * pitch
    planes += pair * plane * _COUNT + pitch
    frames += pair * size * 4
    data = planes + _DATA * plane
    # Where the present copies start and where the other ones do.
    flow, dual = 0 * plane, _DUAL * plane
    other_flow, other_dual = 2 * plane, (_DUAL + 4) * plane
    iterations = 0
    for _ in range(warps):
        _warp(planes + flow, data, frames, height, pitch, plane, BLOCK)
        tl.debug_barrier()
        running = True
        round = 0
        while running & (round < outer):
            if MEDIAN > 1:
                _median(planes + flow, planes + other_flow, height, pitch, MEDIAN, BLOCK)
                _median(planes + flow + plane, planes + other_flow + plane, height, pitch, MEDIAN, BLOCK)
                tl.debug_barrier()
                flow, other_flow = other_flow, flow
            step = 0
            while running & (step < inner):
                error = _iterate(
                    planes + flow, planes + dual, data, planes + other_flow, planes + other_dual,
                    height, pitch, plane, taut, limit, theta, BLOCK,
                )  # fmt: skip
                tl.debug_barrier()
                if tl.abs(error - tolerance) <= doubt * error:
                    error = _one_after_another(planes + flow, planes + other_flow, height, pitch, plane, BLOCK)
                flow, other_flow = other_flow, flow
                dual, other_dual = other_dual, dual
                running = error > tolerance
                step += 1
            iterations += step
            round += 1
    if flow > 0:
        for start in range(0, size, BLOCK):
            at = planes + start + tl.arange(0, BLOCK)
            tl.store(at, tl.load(at + flow))
            tl.store(at + plane, tl.load(at + flow + plane))
    tl.store(work + pair, tl.load(work + pair) + iterations.to(tl.int64) * (size - height))


@triton.jit(do_not_specialize=["start", "plane", "pitch", "new_start", "new_plane", "new_pitch", "height", "width"])
def _resize(
    source, start, image, plane, pitch, target, new_start, new_image, new_plane, new_pitch, height, width,
    lines, line_weights, columns, column_weights, factor, BLOCK: tl.constexpr,
):  # fmt: skip
    """Bilinear resize of two planes of every image, times `factor`; the tables say where from and how much.

    A plane's row `y` begins at `start + image * number + plane * k + y * pitch`. OpenCV multiplies in float64.
    """
    number = tl.program_id(0).to(tl.int64)
    source += start + number * image + tl.program_id(1) * plane
    target += new_start + number * new_image + tl.program_id(1) * new_plane
    here = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    valid = here < height * width
    y = here // width
    x = here - y * width
    row, column = tl.load(lines + y, valid, 0), tl.load(columns + x, valid, 0)
    weight = tl.load(column_weights + x, valid, 0.0)
    at = source + row * pitch + column
    left, low_left = tl.load(at, valid, 0.0), tl.load(at + pitch, valid, 0.0)
    upper = tl.math.fma(weight, tl.load(at + 1, valid, 0.0) - left, left)
    lower = tl.math.fma(weight, tl.load(at + pitch + 1, valid, 0.0) - low_left, low_left)
    blended = tl.math.fma(tl.load(line_weights + y, valid, 0.0), lower - upper, upper)
    scaled = blended.to(tl.float64) * tl.load(factor)
    tl.store(target + y * new_pitch + x, scaled.to(tl.float32), valid)


def _places(length: int, ratio: float, old: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each target pixel of an axis the source pixel before its centre and the weight of the one after it."""
    position = (torch.arange(length, dtype=torch.float64, device=device) + 0.5) * ratio - 0.5
    first = position.floor()
    weight = (position - first).where(first >= 0, 0.0)
    # The last pixel is rounded as in `simd_resample`.
    last, weight_of_last = (old - 2, 1.0) if ratio > 1 else (old - 1, 0.0)
    return first.clamp(0, last).int(), weight.where(first < old - 1, weight_of_last).float()


def _factor(value: float, device: torch.device) -> Tensor:
    """A number of float64 for a kernel, which would take a Python number as float32."""
    return torch.full((1,), value, dtype=torch.float64, device=device)


def _grid(count: int, pixels: int) -> tuple[int, int, int]:
    return count, 2, triton.cdiv(pixels, _BLOCK)


def _smaller(frames_NCHW: Tensor, size: tuple[int, int], ratio: float) -> Tensor:
    """The next coarser level of both frames."""
    count, _, *old = frames_NCHW.shape
    out_NCHW = frames_NCHW.new_empty((count, 2, *size))
    tables = [table for new, was in zip(size, old, strict=True) for table in _places(new, ratio, was, out_NCHW.device)]
    _resize[_grid(count, size[0] * size[1])](
        frames_NCHW, 0, 2 * old[0] * old[1], old[0] * old[1], old[1],
        out_NCHW, 0, 2 * size[0] * size[1], size[0] * size[1], size[1], *size, *tables, _factor(1.0, out_NCHW.device),
        BLOCK=_BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out_NCHW


class _Planes:
    """Workspace of all pairs at one level: planes of `height` rows of `width` pixels and a zero each.

    A row of zeros stands before the first and a tile and a row of them after the last, so that neighbours can be
    read and whole tiles be written without a look at the frame's edges.
    """

    def __init__(self, count: int, height: int, width: int, device: torch.device) -> None:
        self.count, self.height, self.width, self.pitch = count, height, width, width + 1
        self.plane = 2 * self.pitch + triton.cdiv(height * self.pitch, _BLOCK) * _BLOCK + 1
        self.values = torch.zeros((count, _COUNT.value * self.plane), device=device)

    def take_flow(self, coarser: "_Planes", factor: float) -> None:
        """Enlarge the flow of the next coarser level."""
        tables = [
            *_places(self.height, coarser.height / self.height, coarser.height, self.values.device),
            *_places(self.width, coarser.width / self.width, coarser.width, self.values.device),
        ]
        _resize[_grid(self.count, self.height * self.width)](
            coarser.values, coarser.pitch, _COUNT.value * coarser.plane, coarser.plane, coarser.pitch,
            self.values, self.pitch, _COUNT.value * self.plane, self.plane, self.pitch, self.height, self.width,
            *tables, _factor(factor, self.values.device), BLOCK=_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip

    def optimise(self, frames_NCHW: Tensor, settings: TVL1Settings, work_N: Tensor) -> None:
        """All warps of the level, from the flow that is there."""
        still_NHW, moved_NHW = frames_NCHW.unbind(1)
        pixels = self.height * self.width
        # Whole numbers would be other types of argument, and one a constant.
        taut, limit, theta, tolerance = map(
            float,
            (settings.tau / settings.theta, settings.lambda_ * settings.theta, settings.theta,
             settings.epsilon * settings.epsilon * pixels),
        )  # fmt: skip
        images_NCHW = torch.cat([still_NHW[:, None], with_gradients(moved_NHW)], 1)
        _level[(self.count,)](
            self.values, F.pad(images_NCHW, (0, 1)), work_N, self.plane, self.height, self.pitch, settings.warps,
            settings.outer_iterations, settings.inner_iterations, taut, limit, theta, tolerance, pixels * _DOUBT,
            MEDIAN=settings.median, BLOCK=_BLOCK, num_warps=_WARPS, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip

    def flow(self) -> Tensor:
        """The flow (N, 2, H, W)."""
        planes_NCP = self.values.view(self.count, _COUNT.value, self.plane)[:, :2, self.pitch :]
        rows_NCHW = planes_NCP[..., : self.height * self.pitch].unflatten(2, (self.height, self.pitch))
        return rows_NCHW[..., : self.width].contiguous()


@torch.no_grad()
def solve(previous_NHW: Tensor, following_NHW: Tensor, settings: TVL1Settings) -> tuple[Tensor, Tensor]:
    """Flow (N, 2, H, W) in pixels and the work of each pair: pixels times iterations, over all levels.

    Frames are float32 of 0..255 on a CUDA device, or on the CPU where Triton interprets (`TRITON_INTERPRET=1`).
    """
    count, height, width = previous_NHW.shape
    work_N = torch.zeros(count, dtype=torch.int64, device=previous_NHW.device)
    if not count:
        return previous_NHW.new_zeros((0, 2, height, width)), work_N
    with torch.cuda.device_of(previous_NHW):  # Triton launches on the current device
        levels = [torch.stack([previous_NHW, following_NHW], 1)]
        for size in settings.pyramid(height, width)[1:]:
            levels.append(_smaller(levels[-1], size, 1 / settings.scale_step))
        planes = None
        while levels:
            frames_NCHW = levels.pop()
            coarser, planes = planes, _Planes(count, *frames_NCHW.shape[2:], frames_NCHW.device)
            if coarser is not None:
                planes.take_flow(coarser, 1 / settings.scale_step)
            planes.optimise(frames_NCHW, settings, work_N)
        return planes.flow(), work_N

"""TV-L1 on the CPU: one compiled function per frame pair, pairs in parallel over threads.

All planes of a pair lie in one float32 workspace; kernels name them by the offset of their pixel (0, 0). A
row takes `pitch` floats: the `width` pixels, then at least one lane of padding, which also stands left of the
next row.

    plane    LANES + pitch zeros | row 0: width pixels, padding | row 1 ... | LANES zeros
    rows     scratch rows of `pitch` floats with LANES of padding on either side

The primal step of row y needs the dual variable of rows y - 1 and y, the dual step of row y - 1 the new flow
of rows y - 1 and y. So one sweep down the frame does both steps of an iteration, and a row is still in the
first-level cache when it is needed again. Padding lanes never change: their data term and `theta` are zero.
Sums and products stand in OpenCV's order: what rounds differently grows over the iterations, and the stop rule
then ends a warp an iteration sooner or later.
"""

import functools
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from feature_extraction import simd, simd_median
from feature_extraction.files import sha256_file
from feature_extraction.simd import (
    LANES,
    fill,
    load,
    maximum,
    minimum,
    square_root,
    store,
    sum_lanes,
    sum_quads,
)
from feature_extraction.simd_median import extend, median3, median5

if TYPE_CHECKING:
    from feature_extraction.flow import TVL1Settings

_kernel = njit(error_model="numpy", nogil=True)
_inline = njit(error_model="numpy", forceinline=True)

_CUBIC = -0.75  # OpenCV's parameter of cubic interpolation
_BORDER = 4  # zeros around the image that is warped, so that every tap of a clamped position can be read
_FLAT = np.float32(np.finfo(np.float32).eps)  # squared gradient below which OpenCV does not divide
# Planes: u1, u2 and two spare ones; the dual variable p11, p12, p21, p22; the data term (see `_warp`).
_DUAL, _DATA, _PLANES = 4, 8, 12
# Scratch rows: five of sorted columns; theta, zero beyond the frame; one, zero from the last column on.
_ROW_THETA, _ROW_INSIDE, _ROWS = 5, 6, 7


@_inline
def _flow_step(ws, j, pitch, u1, u2, data, size, dual, theta, limit):
    """Threshold step and u = v + theta div p for the pixels at `j`: the new flow and the squared change."""
    old1, old2 = load(ws, u1 + j), load(ws, u2 + j)
    gradient1, gradient2 = load(ws, data + j), load(ws, data + size + j)
    residual = load(ws, data + 2 * size + j) + (gradient1 * old1 + gradient2 * old2)
    step = residual / load(ws, data + 3 * size + j)
    step = maximum(minimum(step, limit), fill(np.float32(0)) - limit)
    p11, p12, p21, p22 = dual + j, dual + size + j, dual + 2 * size + j, dual + 3 * size + j
    divergence1 = (load(ws, p11) - load(ws, p11 - 1)) + (load(ws, p12) - load(ws, p12 - pitch))
    divergence2 = (load(ws, p21) - load(ws, p21 - 1)) + (load(ws, p22) - load(ws, p22 - pitch))
    new1 = (old1 + step * gradient1) + theta * divergence1
    new2 = (old2 + step * gradient2) + theta * divergence2
    change1, change2 = new1 - old1, new2 - old2
    return new1, new2, change1 * change1 + change2 * change2


@_inline
def _dual_step(ws, j, u1, u2, below1, below2, dual, size, inside, tau):
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|) for the pixels at `j`."""
    one = fill(np.float32(1))
    here1, here2 = load(ws, u1 + j), load(ws, u2 + j)
    x1, x2 = load(ws, u1 + j + 1) - here1, load(ws, u2 + j + 1) - here2
    x1, x2 = x1 * inside, x2 * inside
    y1, y2 = below1 - here1, below2 - here2
    norm1 = one + tau * square_root(x1 * x1 + y1 * y1)
    norm2 = one + tau * square_root(x2 * x2 + y2 * y2)
    p11, p12, p21, p22 = dual + j, dual + size + j, dual + 2 * size + j, dual + 3 * size + j
    store(ws, p11, (load(ws, p11) + tau * x1) / norm1)
    store(ws, p12, (load(ws, p12) + tau * y1) / norm1)
    store(ws, p21, (load(ws, p21) + tau * x2) / norm2)
    store(ws, p22, (load(ws, p22) + tau * y2) / norm2)


@_kernel
def _iterate(ws, height, width, pitch, u1, u2, data, dual, size, theta_row, inside_row, limit, tau):
    """One iteration over the frame; returns the sum of squared changes of the flow."""
    limit_lanes, tau_lanes = fill(limit), fill(tau)
    error = fill(np.float32(0))
    for y in range(height):
        for x in range(0, width, LANES):
            j = y * pitch + x
            theta = load(ws, theta_row + x)
            new1, new2, change = _flow_step(ws, j, pitch, u1, u2, data, size, dual, theta, limit_lanes)
            store(ws, u1 + j, new1)
            store(ws, u2 + j, new2)
            error = error + change
            if y > 0:
                inside = load(ws, inside_row + x)
                _dual_step(ws, j - pitch, u1, u2, new1, new2, dual, size, inside, tau_lanes)
    for x in range(0, width, LANES):
        j = (height - 1) * pitch + x
        here1, here2 = load(ws, u1 + j), load(ws, u2 + j)
        _dual_step(ws, j, u1, u2, here1, here2, dual, size, load(ws, inside_row + x), tau_lanes)
    return sum_lanes(error)


@_kernel
def _resize(ws, source, height, width, pitch, target, new_height, new_width, new_pitch, ratio, factor, row):
    """Bilinear resize as `cv2.resize` does it, times `factor`; `ratio`: source per target pixels (y, x)."""
    columns = np.empty(new_width, np.int64)
    weights = np.empty(new_width, np.float32)
    for x in range(new_width):
        columns[x], weights[x] = _between(x, ratio[1], width)
    extend(ws, row, width)
    for y in range(new_height):
        first, weight = _between(y, ratio[0], height)
        upper = source + first * pitch
        lower = source + min(first + 1, height - 1) * pitch
        weight_lanes = fill(weight)
        for x in range(0, width, LANES):
            above = load(ws, upper + x)
            store(ws, row + x, above + weight_lanes * (load(ws, lower + x) - above))
        ws[row + width] = ws[row + width - 1]
        out = target + y * new_pitch
        for x in range(new_width):
            left = ws[row + columns[x]]
            ws[out + x] = factor * (left + weights[x] * (ws[row + columns[x] + 1] - left))


@_inline
def _between(target, ratio, size):
    """The source pixel before a target pixel's centre and the weight of the one after it."""
    position = (target + 0.5) * ratio - 0.5
    first = int(math.floor(position))
    if first < 0:
        return 0, np.float32(0)
    if first >= size - 1:
        return size - 1, np.float32(0)
    return first, np.float32(position - first)


@_kernel
def _interleave(ws, height, width, pitch, source, target):
    """Image, its centred gradients and a zero per pixel, within a border of zeros: what a warp tap reads."""
    stride = (width + 2 * _BORDER) * 4
    ws[target : target + (height + 2 * _BORDER) * stride] = np.float32(0)
    half = np.float32(0.5)
    for y in range(height):
        row = source + y * pitch
        above, below = source + max(y - 1, 0) * pitch, source + min(y + 1, height - 1) * pitch
        out = target + (y + _BORDER) * stride + _BORDER * 4
        for x in range(width):
            ws[out + 4 * x] = ws[row + x]
            ws[out + 4 * x + 1] = half * (ws[row + min(x + 1, width - 1)] - ws[row + max(x - 1, 0)])
            ws[out + 4 * x + 2] = half * (ws[below + x] - ws[above + x])


@_inline
def _position(pixel, motion, size):
    """Whole position, clamped so that every tap can be read, and the fraction beyond it."""
    place = min(max(np.float32(pixel) + motion, np.float32(1 - _BORDER)), np.float32(size + _BORDER - 3))
    whole = int(math.floor(place))
    return whole, place - np.float32(whole)


@_kernel
def _warp(ws, height, width, pitch, still, image, u1, u2, data, size, cubic):
    """Cubic warp of image and gradients; fills the data planes.

    They are: gradient along x, along y, constant part of the residual, minus the squared gradient (not zero).
    """
    image_stride = (width + 2 * _BORDER) * 4
    one, a = np.float32(1), np.float32(_CUBIC)
    cubic0, cubic1 = load(ws, cubic), load(ws, cubic + LANES)
    cubic2, cubic3 = load(ws, cubic + 2 * LANES), load(ws, cubic + 3 * LANES)
    for y in range(height):
        for x in range(width):
            j = y * pitch + x
            column, part_x = _position(x, ws[u1 + j], width)
            line, part_y = _position(y, ws[u2 + j], height)
            tap = image + (line - 1 + _BORDER) * image_stride + (column - 1 + _BORDER) * 4
            square = part_y * part_y
            before = a * part_y * (one - part_y) * (one - part_y)
            here = one - (a + 3) * square + (a + 2) * square * part_y
            last = a * square * (one - part_y)
            total = fill(before) * load(ws, tap) + fill(here) * load(ws, tap + image_stride)
            total = total + fill(one - before - here - last) * load(ws, tap + 2 * image_stride)
            total = total + fill(last) * load(ws, tap + 3 * image_stride)
            part = fill(part_x)
            weight = ((cubic3 * part + cubic2) * part + cubic1) * part + cubic0
            warped, slope_x, slope_y = sum_quads(total * weight)
            squared = slope_x * slope_x + slope_y * slope_y
            ws[data + j] = slope_x
            ws[data + size + j] = slope_y
            constant = warped - slope_x * ws[u1 + j] - slope_y * ws[u2 + j] - ws[still + j]
            ws[data + 2 * size + j] = constant
            ws[data + 3 * size + j] = -max(squared, _FLAT)


@_kernel
def _optimise(ws, height, width, pitch, flow_4, first, size, rows, row_stride, constants, rounds, median):
    """Rounds of median filter and iterations after one warp; returns the number of iterations.

    `flow_4` holds the plane numbers of u1, u2 and two spare planes; `rounds` is (outer, inner).
    """
    theta, limit, tau, tolerance = constants
    theta_row, inside_row = rows + _ROW_THETA * row_stride, rows + _ROW_INSIDE * row_stride
    dual, data = first + _DUAL * size, first + _DATA * size
    iterations = 0
    for _ in range(rounds[0]):
        if median > 1:
            for k in range(2):
                source, target = first + flow_4[k] * size, first + flow_4[k + 2] * size
                if median == 3:
                    median3(ws, height, width, pitch, source, target, rows, row_stride)
                else:
                    median5(ws, height, width, pitch, source, target, rows, row_stride)
            _swap(flow_4)
        u1, u2 = first + flow_4[0] * size, first + flow_4[1] * size
        for _ in range(rounds[1]):
            iterations += 1
            error = _iterate(
                ws, height, width, pitch, u1, u2, data, dual, size, theta_row, inside_row, limit, tau
            )
            if error <= tolerance:
                return iterations
    return iterations


@_inline
def _swap(flow_4):
    flow_4[0], flow_4[1], flow_4[2], flow_4[3] = flow_4[2], flow_4[3], flow_4[0], flow_4[1]


@_inline
def _geometry(levels_L5, level):
    return levels_L5[level, 0], levels_L5[level, 1], levels_L5[level, 2]


@_kernel
def _solve(
    ws, levels_L5, size, row_stride, flow_4, tau, lambda_, theta, scale_step, warps, epsilon, rounds, median
):
    """Flow of the pair whose frames lie in the finest level's planes; returns iterations times pixels.

    `flow_4` receives the plane numbers of the flow. A level is (height, width, pitch, the frames' offsets).
    """
    work = 0
    rows = _PLANES * size + LANES
    cubic = rows + _ROWS * row_stride
    interleaved = cubic + 4 * LANES
    enlarge = np.float32(1 / scale_step)
    coarsest = levels_L5.shape[0] - 1
    for level in range(coarsest):
        height, width, pitch = _geometry(levels_L5, level)
        new_height, new_width, new_pitch = _geometry(levels_L5, level + 1)
        for frame in range(3, 5):
            _resize(
                ws, levels_L5[level, frame], height, width, pitch,
                levels_L5[level + 1, frame], new_height, new_width, new_pitch,
                (1 / scale_step, 1 / scale_step), np.float32(1), rows,
            )  # fmt: skip
    for k in range(4):
        flow_4[k] = k
    for level in range(coarsest, -1, -1):
        height, width, pitch = _geometry(levels_L5, level)
        first = LANES + pitch
        if level == coarsest:
            ws[: _DUAL * size] = np.float32(0)
        else:
            old_height, old_width, old_pitch = _geometry(levels_L5, level + 1)
            ratio = (old_height / height, old_width / width)
            for k in range(2):
                spare = flow_4[k + 2] * size
                ws[spare : spare + size] = np.float32(0)
                _resize(
                    ws, LANES + old_pitch + flow_4[k] * size, old_height, old_width, old_pitch,
                    first + spare, height, width, pitch, ratio, enlarge, rows,
                )  # fmt: skip
            for k in range(2):
                ws[flow_4[k] * size : (flow_4[k] + 1) * size] = np.float32(0)
            _swap(flow_4)
        ws[_DUAL * size : (_PLANES - 1) * size] = np.float32(0)
        ws[(_PLANES - 1) * size : _PLANES * size] = np.float32(1)
        for x in range(row_stride - LANES):
            ws[rows + _ROW_THETA * row_stride + x] = theta if x < width else np.float32(0)
            ws[rows + _ROW_INSIDE * row_stride + x] = np.float32(1) if x < width - 1 else np.float32(0)
        _interleave(ws, height, width, pitch, levels_L5[level, 4], interleaved)
        constants = (theta, lambda_ * theta, tau / theta, np.float32(epsilon * epsilon * (height * width)))
        for _ in range(warps):
            _warp(
                ws, height, width, pitch, levels_L5[level, 3], interleaved,
                first + flow_4[0] * size, first + flow_4[1] * size, first + _DATA * size, size, cubic,
            )  # fmt: skip
            iterations = _optimise(
                ws, height, width, pitch, flow_4, first, size, rows, row_stride, constants, rounds, median
            )
            work += iterations * height * width
    return work


@functools.cache
def compiled_solver():
    """The compiled pair solver; kept on disk between processes where there is a place for it."""
    digests = [sha256_file(module.__file__) for module in (simd, simd_median)]
    imported = "".join(digests)

    def solve_pair(*arguments):
        # numba's cache follows changes of this file only; a captured value is part of its key.
        imported  # noqa: B018
        return _solve(*arguments)

    return compile_cached(solve_pair)


def compile_cached(function):
    """`njit` with the cache on disk, or without where it has no place (a read-only installation)."""
    try:
        return njit(error_model="numpy", nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(error_model="numpy", nogil=True)(function)


class _Plan(NamedTuple):
    levels_L5: np.ndarray
    size: int
    row_stride: int
    total: int


def _plan(height: int, width: int, settings: "TVL1Settings") -> _Plan:
    """Pyramid sizes and the workspace's layout, in floats."""

    def pitch_of(columns: int) -> int:
        return (columns // LANES + 1) * LANES

    def plane_of(lines: int, columns: int) -> int:
        # Some cache lines beyond whole pages: equal places of the planes fall into different cache sets.
        return -(-(2 * LANES + (lines + 2) * pitch_of(columns)) // 1024) * 1024 + 5 * LANES

    size = plane_of(height, width)
    row_stride = pitch_of(width) + 2 * LANES
    interleaved = (height + 2 * _BORDER) * (width + 2 * _BORDER) * 4
    end = _PLANES * size + LANES + _ROWS * row_stride + 4 * LANES + interleaved + LANES
    end = -(-end // LANES) * LANES
    levels = []
    for lines, columns in settings.pyramid(height, width):
        first = LANES + pitch_of(columns)
        plane = plane_of(lines, columns)
        levels.append((lines, columns, pitch_of(columns), end + first, end + plane + first))
        end += 2 * plane
    return _Plan(np.array(levels, np.int64), size, row_stride, end)


def _workspace(plan: _Plan) -> np.ndarray:
    """Zeroed floats that start on a cache line, with the cubic polynomials in their place."""
    memory = np.zeros(plan.total + LANES, np.float32)
    ws = memory[(-memory.ctypes.data // 4) % LANES :][: plan.total]
    a = _CUBIC
    # Rows: power of the fraction; columns: weight of the four taps.
    cubic_44 = np.array([[0, 1, 0, 0], [a, 0, -a, 0], [-2 * a, -a - 3, 2 * a + 3, a], [a, a + 2, -a - 2, -a]])
    start = _PLANES * plan.size + LANES + _ROWS * plan.row_stride
    ws[start : start + 4 * LANES] = np.repeat(cubic_44, 4, axis=1).ravel()
    return ws


def solve(
    previous_NHW: np.ndarray, following_NHW: np.ndarray, settings: "TVL1Settings", threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flow (N, 2, H, W) in pixels and the work of each pair: pixels times iterations, over all levels."""
    count, height, width = previous_NHW.shape
    flow_N2HW = np.empty((count, 2, height, width), np.float32)
    work_N = np.zeros(count, np.int64)
    plan = _plan(height, width, settings)
    solver = compiled_solver()
    parameters = (
        np.float32(settings.tau), np.float32(settings.lambda_), np.float32(settings.theta),
        float(settings.scale_step), settings.warps, float(settings.epsilon),
        (settings.outer_iterations, settings.inner_iterations), settings.median,
    )  # fmt: skip
    _, _, pitch, *frames = plan.levels_L5[0].tolist()
    pending = itertools.count()

    def work() -> None:
        ws = _workspace(plan)
        flow_4 = np.zeros(4, np.int64)

        def pixels(offset: int) -> np.ndarray:
            return ws[offset : offset + height * pitch].reshape(height, pitch)[:, :width]

        for pair in pending:
            if pair >= count:
                return
            pixels(frames[0])[:] = previous_NHW[pair]
            pixels(frames[1])[:] = following_NHW[pair]
            work_N[pair] = solver(ws, plan.levels_L5, plan.size, plan.row_stride, flow_4, *parameters)
            for axis in range(2):
                flow_N2HW[pair, axis] = pixels(LANES + pitch + int(flow_4[axis]) * plan.size)

    workers = min(threads, count)
    if workers <= 1:
        work()
    else:
        with ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(work) for _ in range(workers)]:
                done.result()
    return flow_N2HW, work_N

"""TV-L1 on the CPU: one compiled function per frame pair, pairs in parallel over threads.

All planes of a pair lie in one float32 workspace; kernels name them by the offset of their pixel (0, 0). A
row takes `pitch` floats: the `width` pixels, then at least one lane of padding, which also stands left of the
next row.

    plane    LANES + pitch zeros | row 0: width pixels, padding | row 1 ... | LANES zeros
    rows     scratch rows of `pitch` floats with LANES of padding on either side

The primal step of row y needs the dual variable of rows y - 1 and y, the dual step of row y - 1 the new flow
of rows y - 1 and y. So one sweep down the frame does both steps of an iteration, and a row is still in the
first-level cache when it is needed again. Padding lanes never change: their data term and `theta` are zero.

Every sum, product and root stands in OpenCV's order and rounds as there (see `simd_resample` too), so that the
flow is OpenCV's to the last bit: any other rounding grows over the iterations until the stop rule ends a warp
on another one. OpenCV adds the squared changes one after another in float32. Here sixteen partial sums are added
and decide alone where they are further from the tolerance than both sums can be wrong; only near it the changes,
kept in a plane, are added again as OpenCV does.
"""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from feature_extraction.files import sha256_file
from feature_extraction.flow import median as simd_median
from feature_extraction.flow import resample as simd_resample
from feature_extraction.flow import simd
from feature_extraction.flow.median import median3, median5
from feature_extraction.flow.resample import BORDER, interleave, resize, warp
from feature_extraction.flow.settings import TVL1Settings
from feature_extraction.flow.simd import LANES, fill, first_from, hypotenuse, load, store, sum_lanes, where_less

_kernel = njit(error_model="numpy", nogil=True)
_inline = njit(error_model="numpy", forceinline=True)

_FLAT = np.float32(np.finfo(np.float32).eps)  # squared gradient up to which OpenCV does not divide
# Planes: u1, u2 and two spare ones; the dual variable p11, p12, p21, p22; the data term (see `warp`); the
# squared changes of the last iteration.
_DUAL, _DATA, _CHANGE, _PLANES = 4, 8, 12, 13
# Scratch rows: five of sorted columns; theta, zero beyond the frame; one, zero from the last column on; 0, 1, 2
# and so on; the last is `warp`'s.
_ROW_THETA, _ROW_INSIDE, _ROW_RAMP, _ROW_WARP, _ROWS = 5, 6, 7, 8, 9


@_inline
def _divergence(ws, j, along_x, along_y, pitch, is_first):
    """Backward differences of a dual vector field; OpenCV adds in another order in the first column."""
    x, y, above = load(ws, along_x + j), load(ws, along_y + j), load(ws, along_y + j - pitch)
    inner = (x - load(ws, along_x + j - 1)) + (y - above)
    return first_from((x + y) - above, inner) if is_first else inner


@_inline
def _flow_step(ws, j, pitch, u1, u2, data, size, dual, theta, limit, is_first):
    """Threshold step and u = v + theta div p for the pixels at `j`: the new flow and the squared change."""
    zero = fill(np.float32(0))
    old1, old2 = load(ws, u1 + j), load(ws, u2 + j)
    gradient1, gradient2 = load(ws, data + j), load(ws, data + size + j)
    residual = load(ws, data + 2 * size + j) + (gradient1 * old1 + gradient2 * old2)
    squared = load(ws, data + 3 * size + j)
    reach = limit * squared
    inner = where_less(fill(_FLAT), squared, (zero - residual) / squared, zero)
    step = where_less(reach, residual, zero - limit, inner)
    step = where_less(residual, zero - reach, limit, step)
    divergence1 = _divergence(ws, j, dual, dual + size, pitch, is_first)
    divergence2 = _divergence(ws, j, dual + 2 * size, dual + 3 * size, pitch, is_first)
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
    norm1 = one + tau * hypotenuse(x1, y1)
    norm2 = one + tau * hypotenuse(x2, y2)
    p11, p12, p21, p22 = dual + j, dual + size + j, dual + 2 * size + j, dual + 3 * size + j
    store(ws, p11, (load(ws, p11) + tau * x1) / norm1)
    store(ws, p12, (load(ws, p12) + tau * y1) / norm1)
    store(ws, p21, (load(ws, p21) + tau * x2) / norm2)
    store(ws, p22, (load(ws, p22) + tau * y2) / norm2)


@_kernel
def _iterate(ws, height, width, pitch, u1, u2, data, dual, size, theta_row, inside_row, limit, tau, changes):
    """One iteration over the frame; returns the sum of squared changes of the flow, and stores them."""
    limit_lanes, tau_lanes = fill(limit), fill(tau)
    error = fill(np.float32(0))
    for y in range(height):
        for x in range(0, width, LANES):
            j = y * pitch + x
            theta = load(ws, theta_row + x)
            if x == 0:  # literals: the first column's order costs nothing in the rest of the row
                new1, new2, change = _flow_step(ws, j, pitch, u1, u2, data, size, dual, theta, limit_lanes, True)
            else:
                new1, new2, change = _flow_step(ws, j, pitch, u1, u2, data, size, dual, theta, limit_lanes, False)
            store(ws, u1 + j, new1)
            store(ws, u2 + j, new2)
            store(ws, changes + j, change)
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
def _one_after_another(ws, height, width, pitch, changes):
    """Sum of the changes as OpenCV adds them: pixel by pixel in float32."""
    total = np.float32(0)
    for y in range(height):
        for x in range(width):
            total += ws[changes + y * pitch + x]
    return total


@_kernel
def _optimise(ws, height, width, pitch, flow_4, first, size, rows, row_stride, constants, rounds, median):
    """Rounds of median filter and iterations after one warp; returns the number of iterations.

    `flow_4` holds the plane numbers of u1, u2 and two spare planes; `rounds` is (outer, inner).
    """
    limit, tau, tolerance = constants
    # Bound of the relative error of a float32 sum of so many numbers above zero, for both ways of adding.
    doubt = np.float32(height * width * 2.0**-23)
    theta_row, inside_row = rows + _ROW_THETA * row_stride, rows + _ROW_INSIDE * row_stride
    dual, data, changes = first + _DUAL * size, first + _DATA * size, first + _CHANGE * size
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
                ws, height, width, pitch, u1, u2, data, dual, size, theta_row, inside_row, limit, tau, changes
            )
            if abs(error - tolerance) <= doubt * error:
                error = _one_after_another(ws, height, width, pitch, changes)
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
def _solve(ws, levels_L5, size, row_stride, flow_4, scale_step, warps, epsilon, constants, rounds, median):
    """Flow of the pair whose frames lie in the finest level's planes; returns iterations times pixels.

    `flow_4` receives the plane numbers of the flow. A level is (height, width, pitch, the frames' offsets);
    `constants` are theta, lambda times theta and tau over theta.
    """
    work = 0
    rows = _PLANES * size + LANES
    interleaved = rows + _ROWS * row_stride
    enlarge = 1 / scale_step
    theta, limit, tau = constants
    coarsest = levels_L5.shape[0] - 1
    for level in range(coarsest):
        height, width, pitch = _geometry(levels_L5, level)
        new_height, new_width, new_pitch = _geometry(levels_L5, level + 1)
        for frame in range(3, 5):
            resize(
                ws, levels_L5[level, frame], height, width, pitch,
                levels_L5[level + 1, frame], new_height, new_width, new_pitch,
                (1 / scale_step, 1 / scale_step), 1.0, rows, row_stride,
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
                resize(
                    ws, LANES + old_pitch + flow_4[k] * size, old_height, old_width, old_pitch,
                    first + spare, height, width, pitch, ratio, enlarge, rows, row_stride,
                )  # fmt: skip
            for k in range(2):
                ws[flow_4[k] * size : (flow_4[k] + 1) * size] = np.float32(0)
            _swap(flow_4)
        ws[_DUAL * size : _PLANES * size] = np.float32(0)
        for x in range(row_stride - LANES):
            ws[rows + _ROW_THETA * row_stride + x] = theta if x < width else np.float32(0)
            ws[rows + _ROW_INSIDE * row_stride + x] = np.float32(1) if x < width - 1 else np.float32(0)
            ws[rows + _ROW_RAMP * row_stride + x] = np.float32(x)
        interleave(ws, height, width, pitch, levels_L5[level, 4], interleaved)
        tolerance = np.float32(epsilon * epsilon * (height * width))
        for _ in range(warps):
            warp(
                ws, height, width, pitch, levels_L5[level, 3], interleaved,
                first + flow_4[0] * size, first + flow_4[1] * size, first + _DATA * size, size,
                rows + _ROW_WARP * row_stride, rows + _ROW_RAMP * row_stride,
            )  # fmt: skip
            iterations = _optimise(
                ws, height, width, pitch, flow_4, first, size, rows, row_stride,
                (limit, tau, tolerance), rounds, median,
            )  # fmt: skip
            work += iterations * height * width
    return work


@functools.cache
def compiled_solver():
    """The compiled pair solver; kept on disk between processes where there is a place for it."""
    digests = [sha256_file(module.__file__) for module in (simd, simd_median, simd_resample)]
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


def _plan(height: int, width: int, settings: TVL1Settings) -> _Plan:
    """Pyramid sizes and the workspace's layout, in floats."""

    def pitch_of(columns: int) -> int:
        return (columns // LANES + 1) * LANES

    def plane_of(lines: int, columns: int) -> int:
        # Some cache lines beyond whole pages: equal places of the planes fall into different cache sets.
        return -(-(2 * LANES + (lines + 2) * pitch_of(columns)) // 1024) * 1024 + 5 * LANES

    size = plane_of(height, width)
    row_stride = max(pitch_of(width), simd_resample.WARP_SCRATCH) + 2 * LANES
    interleaved = (height + 2 * BORDER) * (width + 2 * BORDER) * 4
    end = _PLANES * size + LANES + _ROWS * row_stride + interleaved + LANES
    end = -(-end // LANES) * LANES
    levels = []
    for lines, columns in settings.pyramid(height, width):
        first = LANES + pitch_of(columns)
        plane = plane_of(lines, columns)
        levels.append((lines, columns, pitch_of(columns), end + first, end + plane + first))
        end += 2 * plane
    return _Plan(np.array(levels, np.int64), size, row_stride, end)


def _workspace(plan: _Plan) -> np.ndarray:
    """Zeroed floats that start on a cache line."""
    memory = np.zeros(plan.total + LANES, np.float32)
    return memory[(-memory.ctypes.data // 4) % LANES :][: plan.total]


def solve(
    previous_NHW: np.ndarray, following_NHW: np.ndarray, settings: TVL1Settings, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flow (N, 2, H, W) in pixels and the work of each pair: pixels times iterations, over all levels."""
    count, height, width = previous_NHW.shape
    flow_N2HW = np.empty((count, 2, height, width), np.float32)
    work_N = np.zeros(count, np.int64)
    plan = _plan(height, width, settings)
    solver = compiled_solver()
    # Products and quotients in double precision, then rounded, as OpenCV's.
    constants = tuple(
        np.float32(x) for x in (settings.theta, settings.lambda_ * settings.theta, settings.tau / settings.theta)
    )
    parameters = (
        float(settings.scale_step), settings.warps, float(settings.epsilon), constants,
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

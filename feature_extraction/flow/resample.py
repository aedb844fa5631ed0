"""Resize and warp on planes of a float32 workspace (see `tvl1_cpu`), rounded as OpenCV 5 rounds them.

What rounds differently grows over the iterations, and TV-L1's stop rule then ends a warp an iteration sooner or
later; so sums stand in the order, and fused where, the vector code of `cv2.resize` (linear, as its IPP backend
does it) and `cv2.remap` (cubic, zeros outside) has them.
"""

import math

import numpy as np
from numba import njit

from feature_extraction.flow.simd import (
    LANES,
    fill,
    fill_quad,
    floor_lanes,
    fused,
    load,
    load_quad,
    maximum,
    minimum,
    store,
)

_kernel = njit(error_model="numpy", nogil=True)
_inline = njit(error_model="numpy", forceinline=True)

# Zeros around the image that is warped, so that every tap of a clamped position can be read.
BORDER = 4
# Scratch floats of `warp`: place and weights of four taps, along x and y; one warped pixel.
WARP_SCRATCH = 11 * LANES


@_inline
def _between(target, ratio, size):
    """The source pixel before a target pixel's centre and the weight of the one after it."""
    position = (target + 0.5) * ratio - 0.5
    first = int(math.floor(position))
    if first < 0:
        return 0, np.float32(0)
    if first >= size - 1:  # the same pixel, but IPP rounds it as the end of the last gap when it shrinks
        return (size - 2, np.float32(1)) if ratio > 1 else (size - 1, np.float32(0))
    return first, np.float32(position - first)


@_kernel
def resize(ws, source, height, width, pitch, target, new_height, new_width, new_pitch, ratio, factor, rows, stride):
    """Bilinear resize times `factor`; `ratio`: source per target pixels (y, x); sides of two pixels or more."""
    columns = np.empty(new_width, np.int64)
    weights = np.empty(new_width, np.float32)
    for x in range(new_width):
        columns[x], weights[x] = _between(x, ratio[1], width)
    upper, lower = rows, rows + stride
    held = -2  # the source row that `upper` holds, already resized along x; `lower` holds the one below
    for y in range(new_height):
        first, weight = _between(y, ratio[0], height)
        second = min(first + 1, height - 1)
        if first == held + 1:
            upper, lower = lower, upper
            _resize_row(ws, source + second * pitch, columns, weights, lower)
        elif first != held:
            _resize_row(ws, source + first * pitch, columns, weights, upper)
            _resize_row(ws, source + second * pitch, columns, weights, lower)
        held = first
        weight_lanes, out = fill(weight), target + y * new_pitch
        for x in range(0, new_width, LANES):
            above = load(ws, upper + x)
            store(ws, out + x, fused(weight_lanes, load(ws, lower + x) - above, above))
        for x in range(new_width):  # OpenCV multiplies in double precision
            ws[out + x] = np.float32(np.float64(ws[out + x]) * factor)


@_inline
def _resize_row(ws, source, columns, weights, out):
    for x in range(columns.shape[0]):
        left = ws[source + columns[x]]
        ws[out + x] = fused(weights[x], ws[source + columns[x] + 1] - left, left)
    for x in range(columns.shape[0], (columns.shape[0] // LANES + 1) * LANES):
        ws[out + x] = np.float32(0)  # the padding of planes stays zero


@_kernel
def interleave(ws, height, width, pitch, source, target):
    """Image, its centred gradients and a zero per pixel, within a border of zeros: what a warp tap reads."""
    stride = (width + 2 * BORDER) * 4
    ws[target : target + (height + 2 * BORDER) * stride] = np.float32(0)
    half = np.float32(0.5)
    for y in range(height):
        row = source + y * pitch
        above, below = source + max(y - 1, 0) * pitch, source + min(y + 1, height - 1) * pitch
        out = target + (y + BORDER) * stride + BORDER * 4
        for x in range(width):
            ws[out + 4 * x] = ws[row + x]
            ws[out + 4 * x + 1] = half * (ws[row + min(x + 1, width - 1)] - ws[row + max(x - 1, 0)])
            ws[out + 4 * x + 2] = half * (ws[below + x] - ws[above + x])


@_inline
def _place_and_weights(ws, scratch, place, size):
    """Store the whole positions, clamped so that every tap can be read, and the cubic weights of four taps."""
    one, a = fill(np.float32(1)), fill(np.float32(-0.75))
    place = maximum(minimum(place, fill(np.float32(size + BORDER - 3))), fill(np.float32(1 - BORDER)))
    whole = floor_lanes(place)
    part = place - whole
    rest, square = one - part, part * part
    before = a * (part * (rest * rest))
    here = fused(fused(fill(np.float32(1.25)), part, fill(np.float32(-2.25))), square, one)
    last = a * (square * rest)
    store(ws, scratch, whole)
    store(ws, scratch + LANES, before)
    store(ws, scratch + 2 * LANES, here)
    store(ws, scratch + 3 * LANES, one - before - here - last)
    store(ws, scratch + 4 * LANES, last)


@_inline
def _tap_row(ws, tap, w0, w1, w2, w3):
    total = load_quad(ws, tap) * w0
    total = fused(load_quad(ws, tap + 4), w1, total)
    total = fused(load_quad(ws, tap + 8), w2, total)
    return fused(load_quad(ws, tap + 12), w3, total)


@_kernel
def warp(ws, height, width, pitch, still, image, u1, u2, data, size, scratch, ramp):
    """Cubic warp of image and gradients; fills the data planes.

    They are: gradient along x, along y, constant part of the residual, squared gradient. `ramp` is the
    offset of a row that holds 0, 1, 2 and so on; a row has room for whole groups of lanes.
    """
    stride = (width + 2 * BORDER) * 4
    scratch_y = scratch + 5 * LANES
    warped = scratch + 10 * LANES
    for y in range(height):
        for start in range(0, width, LANES):
            j = y * pitch + start
            _place_and_weights(ws, scratch, load(ws, ramp + start) + load(ws, u1 + j), width)
            _place_and_weights(ws, scratch_y, fill(np.float32(y)) + load(ws, u2 + j), height)
            for k in range(min(LANES, width - start)):
                column, line = int(ws[scratch + k]), int(ws[scratch_y + k])
                tap = image + (line - 1 + BORDER) * stride + (column - 1 + BORDER) * 4
                w0, w1 = fill_quad(ws[scratch + LANES + k]), fill_quad(ws[scratch + 2 * LANES + k])
                w2, w3 = fill_quad(ws[scratch + 3 * LANES + k]), fill_quad(ws[scratch + 4 * LANES + k])
                total = _tap_row(ws, tap, w0, w1, w2, w3) * fill_quad(ws[scratch_y + LANES + k])
                for row in range(1, 4):
                    weight = fill_quad(ws[scratch_y + (row + 1) * LANES + k])
                    total = fused(_tap_row(ws, tap + row * stride, w0, w1, w2, w3), weight, total)
                store(ws, warped, total)
                slope_x, slope_y = ws[warped + 1], ws[warped + 2]
                at = j + k
                ws[data + at] = slope_x
                ws[data + size + at] = slope_y
                constant = ws[warped] - slope_x * ws[u1 + at] - slope_y * ws[u2 + at] - ws[still + at]
                ws[data + 2 * size + at] = constant
                ws[data + 3 * size + at] = slope_x * slope_x + slope_y * slope_y

"""Median filters on planes of a float32 workspace (see `tvl1_cpu`), sixteen pixels at a time."""

from numba import njit

from feature_extraction.flow.simd import LANES, load, maximum, minimum, store

_kernel = njit(error_model="numpy", nogil=True)
_inline = njit(error_model="numpy", forceinline=True)


@_inline
def _sorted3(a, b, c):
    a, b = minimum(a, b), maximum(a, b)
    b, c = minimum(b, c), maximum(b, c)
    a, b = minimum(a, b), maximum(a, b)
    return a, b, c


@_inline
def _sorted5(a, b, c, d, e):
    a, d = minimum(a, d), maximum(a, d)
    b, e = minimum(b, e), maximum(b, e)
    a, c = minimum(a, c), maximum(a, c)
    b, d = minimum(b, d), maximum(b, d)
    a, b = minimum(a, b), maximum(a, b)
    c, e = minimum(c, e), maximum(c, e)
    b, c = minimum(b, c), maximum(b, c)
    d, e = minimum(d, e), maximum(d, e)
    c, d = minimum(c, d), maximum(c, d)
    return a, b, c, d, e


@_inline
def extend(ws, row, width):
    """Repeat the first and the last two pixels' neighbours beyond the row's ends."""
    ws[row - 1] = ws[row - 2] = ws[row]
    ws[row + width] = ws[row + width + 1] = ws[row + width - 1]


@_kernel
def median5(ws, height, width, pitch, source, target, rows, stride):
    """Median of 5 x 5 pixels, edges repeated.

    With the columns sorted (shared by five neighbours) and then the rows, the matrix is sorted both ways; of
    its antidiagonals 3, 4 and 5 only the largest, the median and the smallest can be the median of all 25.
    """
    s0, s1, s2, s3, s4 = rows, rows + stride, rows + 2 * stride, rows + 3 * stride, rows + 4 * stride
    for y in range(height):
        r0, r1 = source + max(y - 2, 0) * pitch, source + max(y - 1, 0) * pitch
        r2 = source + y * pitch
        r3, r4 = source + min(y + 1, height - 1) * pitch, source + min(y + 2, height - 1) * pitch
        for x in range(0, width, LANES):
            a, b, c, d, e = _sorted5(
                load(ws, r0 + x), load(ws, r1 + x), load(ws, r2 + x), load(ws, r3 + x), load(ws, r4 + x)
            )
            store(ws, s0 + x, a)
            store(ws, s1 + x, b)
            store(ws, s2 + x, c)
            store(ws, s3 + x, d)
            store(ws, s4 + x, e)
        for k in range(5):
            extend(ws, rows + k * stride, width)
        for x in range(0, width, LANES):
            _, _, _, a3, a4 = _row5(ws, s0 + x)
            _, _, b2, b3, b4 = _row5(ws, s1 + x)
            _, c1, c2, c3, _ = _row5(ws, s2 + x)
            d0, d1, d2, _, _ = _row5(ws, s3 + x)
            e0, e1, _, _, _ = _row5(ws, s4 + x)
            low = maximum(maximum(a3, b2), maximum(c1, d0))
            high = minimum(minimum(b4, c3), minimum(d2, e1))
            _, _, middle, _, _ = _sorted5(a4, b3, c2, d1, e0)
            store(ws, target + y * pitch + x, _sorted3(low, middle, high)[1])


@_inline
def _row5(ws, j):
    return _sorted5(load(ws, j - 2), load(ws, j - 1), load(ws, j), load(ws, j + 1), load(ws, j + 2))


@_kernel
def median3(ws, height, width, pitch, source, target, rows, stride):
    """Median of 3 x 3 pixels, edges repeated; the scheme of `median5`."""
    s0, s1, s2 = rows, rows + stride, rows + 2 * stride
    for y in range(height):
        r0, r2 = source + max(y - 1, 0) * pitch, source + min(y + 1, height - 1) * pitch
        for x in range(0, width, LANES):
            a, b, c = _sorted3(load(ws, r0 + x), load(ws, source + y * pitch + x), load(ws, r2 + x))
            store(ws, s0 + x, a)
            store(ws, s1 + x, b)
            store(ws, s2 + x, c)
        for k in range(3):
            extend(ws, rows + k * stride, width)
        for x in range(0, width, LANES):
            low = _row3(ws, s0 + x)[2]
            middle = _row3(ws, s1 + x)[1]
            high = _row3(ws, s2 + x)[0]
            store(ws, target + y * pitch + x, _sorted3(low, middle, high)[1])


@_inline
def _row3(ws, j):
    return _sorted3(load(ws, j - 1), load(ws, j), load(ws, j + 1))

"""The Triton version in Triton's interpreter, on a CPU; run by `test_tvl1_triton.py` with TRITON_INTERPRET=1.

The interpreter takes some 30 milliseconds an iteration: frames are small and iterations few.
"""

import cv2
import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from feature_extraction.errors import UserError
from feature_extraction.flow import compute as flow
from feature_extraction.flow import tvl1_cpu, tvl1_triton
from feature_extraction.flow.compute import compute_flow
from feature_extraction.flow.settings import TVL1Settings


@triton.jit
def _count(out, number):
    for _ in range(0, number):
        tl.store(out, tl.load(out) + 1)


try:
    _count[(1,)](torch.zeros(1), 2)
except Exception as error:  # the interpreters of Triton before 3.7 fail on loops with NumPy 2.4
    pytest.skip(f"the interpreter of Triton {triton.__version__} fails here: {error}", allow_module_level=True)


def pairs(height: int, width: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise that moves by a pixel, each pair by a little less than the one before it."""
    noise = np.random.default_rng(0).random((count, height + 4, width + 4), np.float32) * 255
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in noise])
    shift = np.linspace(1, 0.3, count, dtype=np.float32)[:, None, None]
    moved = (1 - shift) * smooth + shift * np.roll(smooth, 1, 2)
    return tuple(np.rint((frames[:, 2:-2, 2:-2] - 80).clip(0, 95) * 2.5) for frames in (smooth, moved))


def by_both(previous, following, settings):
    """Flow and work of each pair, by the compiled version and by Triton."""
    flow_N2HW, work_N = tvl1_triton.solve(*map(torch.from_numpy, (previous, following)), settings)
    return *tvl1_cpu.solve(previous, following, settings, 1), flow_N2HW.numpy(), work_N.numpy()


# 1024 pixels are a tile: one frame is less than that with its padding, the others several.
@pytest.mark.parametrize(
    "height, width, changes",
    [
        (23, 37, {"warps": 2}),
        (47, 21, {"median": 3, "scales": 2, "scale_step": 0.7}),
        (33, 64, {"median": 1, "scales": 1, "lambda_": 0.3, "theta": 0.2, "tau": 0.2}),
        (1, 40, {}),
        (17, 3, {}),
    ],
)
def test_equals_the_compiled_version_at_fixed_iterations(height, width, changes):
    few = {"scales": 2, "warps": 1, "inner_iterations": 3, "outer_iterations": 2, "epsilon": 0}
    settings = TVL1Settings(**{**few, **changes})
    expected, expected_work, found, work = by_both(*pairs(height, width), settings)
    np.testing.assert_array_equal(work, expected_work)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found == expected).mean() > 0.99


def test_each_pair_stops_on_the_iteration_of_the_compiled_version():
    previous, following = pairs(20, 24, count=3)
    following[1] = previous[1]
    settings = TVL1Settings(scales=1, warps=1)
    expected, expected_work, found, work = by_both(previous, following, settings)
    np.testing.assert_array_equal(work, expected_work)
    assert work[1] == 20 * 24 and min(work[0], work[2]) > 5 * work[1] and work[0] != work[2]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    alone, _ = tvl1_triton.solve(torch.from_numpy(previous[2:]), torch.from_numpy(following[2:]), settings)
    np.testing.assert_array_equal(alone[0].numpy(), found[2])


def test_doubtful_error_is_added_up_again(monkeypatch):
    """With every error in doubt the sum of OpenCV's order decides: the same iterations and flow."""
    previous, following = pairs(16, 17, count=1)
    settings = TVL1Settings(scales=1, warps=1, inner_iterations=4, outer_iterations=1)
    expected, _, found, _ = by_both(previous, following, settings)
    monkeypatch.setattr(tvl1_triton, "_DOUBT", 1e6)
    _, _, doubted, _ = by_both(previous, following, settings)
    np.testing.assert_array_equal(doubted, found)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@triton.jit
def _added_up(old, new, out, height, pitch, plane, BLOCK: tl.constexpr):
    tl.store(out, tvl1_triton._one_after_another(old, new, height, pitch, plane, BLOCK))


def test_sum_of_changes_in_opencv_order():
    height, pitch, plane = 7, 12, 128
    generator = np.random.default_rng(1)
    old, new = np.zeros((2, 2, plane), np.float32)
    for planes in (old, new):
        planes[:, : height * pitch] = generator.normal(0, 1, (2, height * pitch)) * 10 ** generator.uniform(-4, 2)
    change = new - old
    squared = change[0] * change[0] + change[1] * change[1]
    expected = np.float32(0)
    for value in squared[: height * pitch]:
        expected += value
    out = torch.zeros(1)
    _added_up[(1,)](torch.from_numpy(old), torch.from_numpy(new), out, height, pitch, plane, BLOCK=32)
    assert out.item() == expected


@triton.jit
def _arithmetic(a, b, root, ratio, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x, y = tl.load(a + at), tl.load(b + at)
    tl.store(root + at, tvl1_triton._hypot(x, y))
    above = 1.0 + tl.abs(y)
    tl.store(ratio + at, tvl1_triton._quotient(x, above, tvl1_triton._inverse(above)))


def test_roots_and_quotients_are_rounded_once():
    count = 1 << 16
    generator = np.random.default_rng(2)
    a, b = (generator.normal(0, 1, (2, count)) * 10.0 ** generator.uniform(-6, 2, (2, count))).astype(np.float32)
    a[0] = b[0] = 0
    root, ratio = torch.empty(2, count)
    _arithmetic[(1,)](torch.from_numpy(a), torch.from_numpy(b), root, ratio, BLOCK=count)
    exact = np.hypot(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    assert (root.numpy() != exact).mean() < 1e-4  # those between two numbers of float32
    np.testing.assert_array_equal(ratio.numpy(), a / (1 + np.abs(b)))


def test_public_function_takes_arrays_and_tensors_in_parts(monkeypatch):
    previous, following = (frames.astype(np.uint8) for frames in pairs(16, 19, count=3))
    settings = TVL1Settings(warps=1, inner_iterations=2, outer_iterations=1, median=1)
    whole = compute_flow(previous, following, settings, algorithm="tvl1_triton")
    assert whole.dtype == np.float32 and whole.shape == (3, 2, 16, 19) and np.abs(whole).max() > 0.01
    monkeypatch.setattr(flow, "_HOST_BYTES", 1)
    calls = []
    solve = tvl1_triton.solve
    monkeypatch.setattr(tvl1_triton, "solve", lambda *given: calls.append(len(given[0])) or solve(*given))
    tensors = compute_flow(*map(torch.from_numpy, (previous, following)), settings, algorithm="tvl1_triton")
    assert isinstance(tensors, torch.Tensor) and calls == [1, 1, 1]
    np.testing.assert_array_equal(tensors.numpy(), whole)
    one = compute_flow(previous[:1], following[:1], settings, algorithm="tvl1_triton")
    np.testing.assert_array_equal(one, whole[:1])
    assert compute_flow(previous[:0], following[:0], settings, algorithm="tvl1_triton").shape == (0, 2, 16, 19)
    assert tvl1_triton.solve(*torch.zeros(2, 0, 16, 19), settings)[0].shape == (0, 2, 16, 19)


def test_cpu_without_the_interpreter_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    frames = np.zeros((1, 16, 16), np.float32)
    with pytest.raises(UserError, match="needs a CUDA device, got 'cpu'"):
        compute_flow(frames, frames, TVL1Settings(), algorithm="tvl1_triton")

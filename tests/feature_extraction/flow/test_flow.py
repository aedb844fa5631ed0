"""Our TV-L1 against OpenCV's class, against known motion, and against itself."""

import cv2
import numpy as np
import pytest
import torch

from feature_extraction.errors import UserError
from feature_extraction.flow.compute import FLOWS, compute_flow, tvl1_flow
from feature_extraction.flow.settings import TVL1Settings
from feature_extraction.networks.i3d import for_inference, load_i3d
from feature_extraction.networks.preprocess import quantize_flow

from ...places import ROOT, SHARED

SANDBOX_FLOW = ROOT / "data" / "sandbox" / "i3d_flow.safetensors"
CLIPS = ("golf_swing.mp4", "mma_test.mp4", "abseiling_k400.mp4")
needs_opencv_5 = pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV before 5 rounds warped positions to 1/32 pixel"
)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return (smooth - smooth.min()) / np.ptp(smooth) * np.float32(255)


def moved(frame: np.ndarray, x: float, y: float) -> np.ndarray:
    """The frame with its content moved by (x, y) pixels."""
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    size = (frame.shape[1], frame.shape[0])
    out = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.clip(out, 0, 255)


def pairs(height: int, width: int, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc that moves over a still background, the size of both from the frame's."""
    previous, following = [], []
    for seed, (x, y) in zip(range(count), [(1.5, -0.75), (-2.25, 1.0), (0.5, 0.5)] * count, strict=False):
        ground, disc = texture(height, width, seed), texture(height, width, seed + 100)
        mask = np.zeros((height, width), np.float32)
        cv2.circle(mask, (width // 2, height // 2), min(height, width) // 4, 1.0, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), 1)
        later = moved(mask, x, y)
        previous.append(ground * (1 - mask) + disc * mask)
        following.append(ground * (1 - later) + moved(disc, x, y) * later)
    return np.stack(previous), np.stack(following)


HERE = [name for name in FLOWS if name != "tvl1_triton"]  # which runs on a GPU, see test_tvl1_triton.py


def fused(a, b, c):
    """a * b + c rounded once to float32."""
    return (np.float64(a) * b + c).astype(np.float32)


def opencv_fuses_products() -> bool:
    """Whether this OpenCV, on this processor, rounds as our flow assumes: that is its own affair, not ours.

    OpenCV 5 resizes by IPP on x86 and warps by code made for the processor at hand, both with fused products.
    """
    image = np.random.default_rng(0).random((32, 45), np.float32) * 255
    at, part = np.divmod((np.arange(40) + 0.5) * (45 / 40) - 0.5, 1)
    at, part = at.astype(int), part.astype(np.float32)
    resized = fused(part, image[:, at + 1] - image[:, at], image[:, at])
    place = np.linspace(5, 35, 200, dtype=np.float32)
    column = np.floor(place).astype(int)
    part = place - column.astype(np.float32)
    rest, square, a = 1 - part, part * part, np.float32(-0.75)
    weights = [a * (part * (rest * rest)), fused(fused(np.float32(1.25), part, np.float32(-2.25)), square, 1)]
    last = a * (square * rest)
    weights += [1 - weights[0] - weights[1] - last, last]
    warped = image[8, column - 1] * weights[0]
    for tap in range(1, 4):
        warped = fused(image[8, column - 1 + tap], weights[tap], warped)
    row = np.full((1, 200), 8, np.float32)
    return np.array_equal(resized, cv2.resize(image, (40, 32))) and np.array_equal(
        warped[None], cv2.remap(image, place[None], row, cv2.INTER_CUBIC)
    )


needs_same_rounding = pytest.mark.skipif(
    not opencv_fuses_products(), reason="OpenCV's resize or remap does not fuse products here, as ours do"
)


def end_point_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a - b) ** 2).sum(1))


def whole(*batches: np.ndarray) -> list[np.ndarray]:
    """Grey levels as videos have them: OpenCV rounds other ones before it starts."""
    return [np.rint(batch).astype(np.uint8) for batch in batches]


def real_frames(clip: str, count: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The first grey frames of a clip without the last, and without the first."""
    path = SHARED / "videos" / "clips" / clip
    if not path.exists():
        pytest.skip(f"no real data beside the checkout: {clip}")
    capture = cv2.VideoCapture(str(path))
    frames = []
    for _ in range(count):
        done, frame = capture.read()
        assert done
        frames.append(cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_BGR2GRAY))
    return np.stack(frames[:-1]), np.stack(frames[1:])


def real_pairs(clip: str) -> tuple[np.ndarray, np.ndarray]:
    """The first pair of frames and the ninth, at the size of feature extraction."""
    previous, following = real_frames(clip, 10, (340, 256))
    return previous[[0, 8]], following[[0, 8]]


CASES = [
    (64, 64, {}),
    (97, 83, {}),
    (16, 16, {}),
    (60, 75, {"median": 3}),
    (60, 75, {"median": 1, "outer_iterations": 2}),
    (60, 75, {"scales": 3, "scale_step": 0.5, "warps": 2, "lambda_": 0.3, "theta": 0.2, "tau": 0.2}),
    (68, 92, {"scale_step": 0.7, "lambda_": 0.05, "theta": 0.25}),
]


@needs_opencv_5
@pytest.mark.parametrize("clip", CLIPS)
def test_real_clips_are_near_opencv(clip):
    """However OpenCV rounds here."""
    previous, following = real_pairs(clip)
    expected = compute_flow(previous, following, TVL1Settings(), algorithm="tvl1_opencv")
    error = end_point_error(compute_flow(previous, following, TVL1Settings()), expected)
    assert error.mean() <= 0.02 and np.percentile(error, 99) <= 0.1


@needs_same_rounding
@pytest.mark.parametrize("clip", CLIPS)
def test_real_clips_equal_opencv_to_the_last_bit(clip):
    previous, following = real_pairs(clip)
    expected = compute_flow(previous, following, TVL1Settings(), algorithm="tvl1_opencv")
    assert np.array_equal(compute_flow(previous, following, TVL1Settings()), expected)


@needs_opencv_5
@pytest.mark.parametrize("clip", CLIPS)
def test_i3d_features_of_our_flow_are_those_of_opencvs(clip):
    previous, following = real_frames(clip, 17, (171, 128))
    model = for_inference(load_i3d(SANDBOX_FLOW, 2))
    features = []
    for algorithm in ("tvl1", "tvl1_opencv"):
        flow_N2HW = compute_flow(previous, following, TVL1Settings(), algorithm=algorithm)
        flow_NHWC = quantize_flow(flow_N2HW, 20.0)
        clip_1CTHW = torch.from_numpy(flow_NHWC).permute(3, 0, 1, 2)[None].float() * (2 / 255) - 1
        features.append(model.features(clip_1CTHW)[0])
    assert torch.cosine_similarity(*features, dim=0) >= 0.99


@needs_same_rounding
@pytest.mark.parametrize("height, width, changes", CASES)
def test_rendered_motion_equals_opencv_to_the_last_bit(height, width, changes):
    previous, following = whole(*pairs(height, width))
    settings = TVL1Settings(**changes)
    expected = compute_flow(previous, following, settings, algorithm="tvl1_opencv")
    assert np.array_equal(compute_flow(previous, following, settings), expected)


@needs_opencv_5
@pytest.mark.parametrize("height, width, changes", CASES)
def test_rendered_motion_of_other_grey_levels_is_near_opencv(height, width, changes):
    previous, following = pairs(height, width)
    settings = TVL1Settings(**changes)
    expected = compute_flow(previous, following, settings, algorithm="tvl1_opencv")
    error = end_point_error(compute_flow(previous, following, settings), expected)
    assert error.mean() <= 0.02 and np.percentile(error, 99) <= 0.1


@needs_same_rounding
def test_panning_frame_equals_opencv_to_the_last_bit():
    """Content that leaves the frame makes the edges chaotic: any other rounding ends in another flow."""
    frame = texture(96, 96)
    batch = whole(frame[None], moved(frame, -2.25, 1.0)[None])
    expected = compute_flow(*batch, TVL1Settings(), algorithm="tvl1_opencv")
    assert np.array_equal(compute_flow(*batch, TVL1Settings()), expected)


@needs_opencv_5
def test_single_iteration_equals_opencv_to_rounding():
    """Without the stop rule's amplification every step must agree to float32 rounding."""
    settings = TVL1Settings(scales=1, warps=1, inner_iterations=5, outer_iterations=2, epsilon=0)
    previous, following = pairs(50, 71)
    expected = compute_flow(previous, following, settings, algorithm="tvl1_opencv")
    assert np.abs(compute_flow(previous, following, settings) - expected).max() < 1e-5


@needs_opencv_5
@pytest.mark.parametrize("algorithm", ["tvl1", "tvl1_torch"])
def test_panning_frame_equals_opencv_at_fixed_iterations(algorithm):
    """Content that leaves the frame makes the edges chaotic: the stop rule then falls on another iteration for
    any change of rounding. With the number of iterations fixed the whole solver must still agree."""
    frame = texture(64, 64)
    batch = frame[None], moved(frame, -2.25, 1.0)[None]
    settings = TVL1Settings(epsilon=0, outer_iterations=3, scales=3, warps=3)
    expected = compute_flow(*batch, settings, algorithm="tvl1_opencv")
    error = end_point_error(compute_flow(*batch, settings, algorithm=algorithm), expected)
    assert error.mean() <= 0.005 and np.percentile(error, 99) <= 0.05


@pytest.mark.parametrize("algorithm", ["tvl1", "tvl1_torch"])
def test_known_motion_is_found(algorithm):
    frame = texture(64, 80)
    flow = compute_flow(frame[None], moved(frame, 1.5, -0.75)[None], TVL1Settings(), algorithm=algorithm)
    inner = flow[0, :, 12:-12, 12:-12]
    assert np.abs(np.median(inner, (1, 2)) - [1.5, -0.75]).max() < 0.05


def test_torch_version_equals_compiled_version():
    previous, following = pairs(40, 53)
    settings = TVL1Settings(epsilon=0, outer_iterations=2, median=3)
    witness = compute_flow(previous, following, settings, algorithm="tvl1_torch")
    error = end_point_error(witness, compute_flow(previous, following, settings))
    assert error.mean() <= 0.005 and np.percentile(error, 99) <= 0.05


def test_torch_version_stops_each_pair_by_its_own_error():
    previous, following = pairs(32, 40)
    following[1] = previous[1]  # stops at once, the others do not
    batch = compute_flow(previous, following, TVL1Settings(), algorithm="tvl1_torch")
    for pair in range(3):
        part = slice(pair, pair + 1)
        single = compute_flow(previous[part], following[part], TVL1Settings(), algorithm="tvl1_torch")
        assert end_point_error(batch[part], single).mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    previous, following = pairs(64, 64)
    error = end_point_error(tvl1_flow(previous, following, device="cuda"), tvl1_flow(previous, following))
    assert error.mean() <= 0.02 and np.percentile(error, 99) <= 0.1


@pytest.mark.parametrize("algorithm", HERE)
def test_identical_frames_do_not_move(algorithm):
    frames = pairs(30, 41)[0]
    assert not compute_flow(frames, frames, TVL1Settings(), algorithm=algorithm).any()


def test_a_pair_does_not_depend_on_its_batch_nor_on_threads():
    previous, following = pairs(33, 50, count=5)
    batch = tvl1_flow(previous, following, threads=2)
    assert batch.dtype == np.float32 and batch.shape == (5, 2, 33, 50)
    for pair in range(5):
        single = tvl1_flow(previous[pair : pair + 1], following[pair : pair + 1], threads=1)
        np.testing.assert_array_equal(single[0], batch[pair])


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (17, 3), (5, 16), (31, 32), (16, 47)])
def test_odd_and_tiny_frames(height, width):
    previous = np.random.default_rng(0).random((2, height, width), np.float32) * 255
    flow = tvl1_flow(previous, previous[::-1])
    assert flow.shape == (2, 2, height, width) and np.isfinite(flow).all()


def test_layout_and_type_of_the_input_do_not_matter():
    previous, following = (np.round(frames) for frames in pairs(24, 37))
    expected = tvl1_flow(previous, following)
    strided = tvl1_flow(np.asfortranarray(previous), np.repeat(following, 2, axis=2)[:, :, ::2])
    np.testing.assert_array_equal(strided, expected)
    np.testing.assert_array_equal(tvl1_flow(previous.astype(np.uint8), following.astype(np.float64)), expected)
    read_only = previous.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(tvl1_flow(read_only, following), expected)
    tensors = tvl1_flow(torch.from_numpy(previous), torch.from_numpy(following))
    assert isinstance(tensors, torch.Tensor) and tensors.dtype == torch.float32
    np.testing.assert_array_equal(tensors.numpy(), expected)


def test_no_pairs_no_flow():
    empty = np.zeros((0, 20, 30), np.float32)
    for algorithm in HERE:
        assert compute_flow(empty, empty, TVL1Settings(), algorithm=algorithm).shape == (0, 2, 20, 30)


FRAMES = np.zeros((2, 20, 20), np.float32)


@pytest.mark.parametrize(
    "previous, following, message",
    [
        (FRAMES[0], FRAMES[0], r"shape \(N, H, W\), got \(20, 20\)"),
        (FRAMES, FRAMES[:1], "one kind and shape"),
        (FRAMES, torch.zeros(2, 20, 20), "one kind and shape"),
        (FRAMES.astype(np.int32), FRAMES.astype(np.int32), "int32"),
        (FRAMES, FRAMES * np.nan, "following frames must hold grey levels"),
        (FRAMES + 300, FRAMES, "previous frames must hold grey levels of 0..255, got 300"),
        (FRAMES[:, :0], FRAMES[:, :0], "shape"),
        ([[0]], [[0]], "numpy array or torch tensor, got list"),
    ],
)
def test_wrong_frames_are_named(previous, following, message):
    with pytest.raises(UserError, match=message):
        tvl1_flow(previous, following)


@pytest.mark.parametrize(
    "parameter, value",
    [
        ("tau", 0.3), ("tau", 0), ("lambda_", -1), ("theta", float("nan")), ("scales", 0), ("scale_step", 1.0),
        ("warps", 1.5), ("epsilon", "a"), ("inner_iterations", True), ("median", 4), ("outer_iterations", 0),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(parameter, value):
    with pytest.raises(UserError, match=parameter):
        tvl1_flow(FRAMES, FRAMES, **{parameter: value})


def test_wrong_algorithm_threads_and_device_are_named():
    with pytest.raises(UserError, match="farneback"):
        compute_flow(FRAMES, FRAMES, TVL1Settings(), algorithm="farneback")
    with pytest.raises(UserError, match="threads"):
        tvl1_flow(FRAMES, FRAMES, threads=0)
    with pytest.raises(UserError, match="nowhere"):
        tvl1_flow(FRAMES, FRAMES, device="nowhere")


def test_compiles_where_no_cache_can_be_kept():
    from feature_extraction.flow.tvl1_cpu import compile_cached

    scope: dict = {}
    exec("def twice(x):\n    return 2 * x", scope)  # numba has no file to keep its cache beside
    assert compile_cached(scope["twice"])(21) == 42

"""Pixels to network inputs, against the rules that the literature states and against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_extraction.networks.preprocess import (
    ClipFrames,
    Windows,
    clip_frame_numbers,
    crop_boxes,
    mirror,
    quantize_flow,
    still_flow,
    window_count,
)
from feature_extraction.store.grid import TimeGrid
from feature_extraction.video.resize import resize_short_side


def numbered(count, start=0):
    return np.arange(start, start + count, dtype=np.int64).reshape(-1, 1, 1, 1)


def test_flow_rounding_is_denseflows():
    """Values measured from denseflow's rule: f = -20, -19.9, 0, 0.1, 20 give 0, 1, 128, 128, 255."""
    flow = np.array([-25.0, -20.0, -19.9, 0.0, 0.1, 20.0, 99.0], np.float32).reshape(1, 1, 1, -1)
    quantized = quantize_flow(np.concatenate([flow, flow], axis=1), 20.0)
    assert quantized[0, 0, :, 0].tolist() == [0, 0, 1, 128, 128, 255, 255]
    np.testing.assert_array_equal(still_flow(1, 1, 1), quantize_flow(np.zeros((1, 2, 1, 1), np.float32), 20.0))


def test_short_side_keeps_the_aspect_and_small_frames_grow():
    assert resize_short_side(np.zeros((100, 200, 3), np.uint8), 50).shape == (50, 100, 3)
    assert resize_short_side(np.zeros((200, 101, 3), np.uint8), 50).shape == (99, 50, 3)
    assert resize_short_side(np.zeros((20, 40, 3), np.uint8), 40).shape == (40, 80, 3)
    frame = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    np.testing.assert_array_equal(resize_short_side(frame, None), frame)


def test_crops():
    # The centre crop of the public extractors: rows 16:240, columns 58:282 of 256 x 340
    assert crop_boxes(256, 340, 224, "center") == [(16, 58, 224, 224)]
    assert crop_boxes(60, 80, None, "center") == [(0, 0, 60, 80)]
    assert crop_boxes(256, 340, 224, "ten")[:4] == [
        (0, 0, 224, 224), (0, 116, 224, 224), (32, 0, 224, 224), (32, 116, 224, 224)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="smaller than the crop"):
        crop_boxes(100, 340, 224, "center")


def test_mirrored_flow_turns_its_x_motion():
    flow = np.zeros((1, 1, 2, 2), np.uint8)
    flow[0, 0, 0] = (200, 90)
    flow[0, 0, 1] = (30, 10)
    assert mirror(flow)[0, 0].tolist() == [[225, 10], [55, 90]]
    rgb = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(mirror(rgb), rgb[:, :, ::-1])


@given(frames=st.integers(1, 100), window=st.integers(1, 20), stride=st.integers(1, 24), chunk=st.integers(1, 40))
def test_windows_against_slicing(frames, window, stride, chunk):
    windows = Windows(window, stride)
    got = []
    for start in range(0, frames, chunk):
        got += windows.push(numbered(min(chunk, frames - start), start))
    got += windows.finish()
    expected, start = [], 0
    while start < frames and (not expected or start - stride + window < frames):
        expected.append([min(number, frames - 1) for number in range(start, start + window)])
        start += stride
    assert [clip.ravel().tolist() for clip in got] == expected
    assert len(expected) == window_count(frames, window, stride)
    if stride <= window:
        assert len(expected) == TimeGrid(25.0, window, stride).snippets_of(frames)
        assert windows.padding == (len(expected) - 1) * stride + window - frames


def test_clip_frames_of_a_snippet():
    assert clip_frame_numbers(0, 16, 16, 1, None, 25.0) == [8]
    assert clip_frame_numbers(2, 16, 16, 4, None, 25.0) == [34, 38, 42, 46]
    # At 5 frames a second every fifth frame: 15, 20, 25, 30 lie in [16, 32) but for 15
    assert clip_frame_numbers(1, 16, 16, 1, 5.0, 25.0) == [20, 25, 30]
    # At half a frame a second: frames 0, 50, ...; the snippet [16, 32) has none and takes 0
    assert clip_frame_numbers(1, 16, 16, 1, 0.5, 25.0) == [0]


@given(
    frames=st.integers(1, 90),
    window=st.integers(1, 16),
    stride=st.integers(1, 16),
    count=st.integers(1, 4),
    rate=st.sampled_from([None, 0.5, 3.0, 10.0, 25.0]),
    chunk=st.integers(1, 40),
)
def test_clip_features_are_means_over_the_chosen_frames(frames, window, stride, count, rate, chunk):
    clip = ClipFrames(window, stride, min(count, window), rate, 25.0)
    asked = []
    for start in range(0, frames, chunk):
        given_out = clip.push(numbered(min(chunk, frames - start), start))
        asked += given_out
        for number, image in given_out:
            clip.add(number, image.ravel().astype(float))
        clip.settle()
    for number, image in clip.finish():
        asked.append((number, image))
        clip.add(number, image.ravel().astype(float))
    clip.settle()
    assert all(image.item() == number for number, image in asked)
    expected = [
        np.mean([min(n, frames - 1) for n in clip_frame_numbers(t, window, stride, min(count, window), rate, 25.0)])
        for t in range(window_count(frames, window, stride))
    ]
    np.testing.assert_allclose(np.ravel(clip.features), expected)
    assert len({number for number, _ in asked}) == len(asked)

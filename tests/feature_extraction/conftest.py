"""Videos made for the tests, and networks that only measure brightness."""

from fractions import Fraction

import numpy as np
import pytest


def _write_video(path, frames, *, codec="libx264", fps=25, pixel_format="yuv420p", times=None, options=None):
    """Encode `[N, H, W, 3]` uint8 frames; `times` are milliseconds from the start, regular by default."""
    import av

    if options is None:
        options = {
            "libx264": {"preset": "ultrafast", "crf": "12"},
            "libx265": {"preset": "ultrafast", "crf": "12", "x265-params": "log-level=none:pools=1"},
            "libsvtav1": {"preset": "12", "crf": "20", "svtav1-params": "lp=1"},
            "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "15", "b": "0"},
            "ffv1": {},
        }[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _gray_steps(count, height=64, width=64, first=40, step=2):
    """Frames whose brightness tells their number."""
    levels = (first + step * np.arange(count)) % 256
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


@pytest.fixture
def write_video():
    return _write_video


@pytest.fixture
def gray_steps():
    return _gray_steps


@pytest.fixture
def brightness_towers():
    """Towers whose features are the mean of each frame (rgb, flow: 16; clip: 1)."""
    from feature_extraction.networks.towers import Tower

    def snippets(inputs):
        return np.stack([clip.reshape(len(clip), -1).mean(axis=1) for clip in inputs]).astype(np.float32)

    def images(inputs):
        return np.stack([[image.mean()] for image in inputs]).astype(np.float32)

    network = {"architecture": "brightness"}
    return {
        "rgb": Tower(snippets, 16, network),
        "flow": Tower(snippets, 16, network),
        "clip": Tower(images, 1, network),
    }

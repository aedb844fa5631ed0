"""Which inputs share a batch, and how many."""

import numpy as np
import pytest

from feature_extraction.networks.towers import Tower
from feature_extraction.pipeline.assembly import Assembly, Batcher
from feature_extraction.pipeline.network_pool import NetworkPool
from feature_extraction.settings import ExtractionSettings


def test_spanning_batches_have_one_shape_and_mix_videos():
    """As on a GPU: full batches across videos, the last one padded; the features go to their owners."""
    seen = []

    def run(inputs):
        seen.append((len(inputs), {clip.shape for clip in inputs}))
        return np.stack([[clip.mean()] for clip in inputs])

    settings = ExtractionSettings(streams=("rgb",), window=2, stride=2, crop=None)
    batcher = Batcher("rgb", Tower(run, 1, {}), 4, spanning=True, pool=NetworkPool(0))
    videos = [Assembly(settings, ["rgb"]) for _ in range(3)]
    for number, assembly in enumerate(videos):
        frames = np.full((6, 4, 4, 3), 10 * number, np.uint8)
        assembly.frames = 6
        batcher.add(assembly, assembly.push("rgb", frames) + assembly.finish("rgb"))
        assembly.ended = True
    assert [assembly.complete for assembly in videos] == [True, True, False]
    batcher.flush()
    assert videos[2].complete
    assert seen == [(4, {(2, 4, 4, 3)})] * 3
    for number, assembly in enumerate(videos):
        np.testing.assert_array_equal(assembly.arrays()["rgb"], np.full((3, 1), 10 * number))


@pytest.mark.parametrize(
    ("window_shape", "expected"),
    [((8, 64, 64, 3), 32), ((16, 112, 112, 3), 16), ((16, 224, 224, 2), 4), ((64, 340, 256, 3), 4)],
)
def test_small_windows_go_through_a_core_in_larger_batches(window_shape, expected):
    seen = []

    def run(inputs):
        seen.append(len(inputs))
        return np.zeros((len(inputs), 1))

    settings = ExtractionSettings(streams=("rgb",))
    batcher = Batcher("rgb", Tower(run, 1, {}), 0, spanning=False, pool=NetworkPool(0))
    inputs = [(number, np.broadcast_to(np.uint8(0), window_shape)) for number in range(2 * expected + 1)]
    batcher.add(assembly := Assembly(settings, ["rgb"]), inputs)
    batcher.flush(assembly)
    assert seen == [expected, expected, 1]

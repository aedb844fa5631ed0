"""Features of several streams: one length, one grid, the right video, and what is missing."""

import numpy as np
import pytest

from feature_extraction.errors import UserError
from wtal.datasets.features import FeatureSet, available

from .makers import write_store


def test_streams_are_cut_to_one_length_and_mapped(tmp_path):
    features = FeatureSet(write_store(tmp_path, {"a": 7, "b": 3}, extra={("flow", "a"): 6}), ("rgb", "flow"))
    assert features.ids() == ["a", "b"] and features.length("a") == 6 and features.dims == {"rgb": 4, "flow": 4}
    read = features.read("a")
    assert list(read) == ["rgb", "flow"] and {len(x) for x in read.values()} == {6}
    assert isinstance(read["rgb"], np.memmap) and read["rgb"].dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        read["rgb"][0, 0] = 1
    assert features.duration("b") == pytest.approx(3 * 0.64)
    assert features.grid.to_seconds(1) == 0.64


def test_lengths_that_differ_by_more_are_named(tmp_path):
    features = FeatureSet(write_store(tmp_path, {"a": 7}, extra={("flow", "a"): 5}), ("rgb", "flow"))
    with pytest.raises(UserError, match="'a' differ in length .rgb 7, flow 5 snippets"):
        features.read("a")


def test_streams_on_other_grids_are_refused(tmp_path):
    write_store(tmp_path, {"a": 7}, streams=("rgb",))
    write_store(tmp_path, {"a": 7}, streams=("flow",), stride=8)
    with pytest.raises(UserError, match="'rgb' and 'flow' are on different time grids"):
        FeatureSet(tmp_path, ("rgb", "flow"))
    assert FeatureSet(tmp_path, ("flow",)).grid.stride == 8


def test_a_missing_stream_or_store_is_named(tmp_path):
    with pytest.raises(UserError, match="no stream 'clip'"):
        FeatureSet(write_store(tmp_path / "x", {"a": 7}), ("rgb", "clip"))
    with pytest.raises(UserError, match="no such feature store"):
        FeatureSet(tmp_path / "none", ("rgb",))


def test_missing_videos_are_counted_and_named(tmp_path):
    features = FeatureSet(write_store(tmp_path, {"a": 2, "b": 2}), ("rgb",))
    with pytest.raises(UserError, match="no features for 2 of 3 videos: c, d; extract them or set data.missing"):
        available(features, ["a", "c", "d"], "error")
    assert available(features, ["d", "b", "c", "a"], "skip") == (["b", "a"], ["d", "c"])
    with pytest.raises(UserError, match="the store holds a, b, ...: do the ids fit"):
        available(features, ["v_a", "v_b"], "skip")
    with pytest.raises(UserError, match="no features of video 'zz'"):
        features.read("zz")


def test_prefix_and_folders(tmp_path):
    store = write_store(tmp_path, {"v_a": 2, "test%2Fv_b": 3, "x%2Fv_c": 1, "y%2Fv_c": 1}, streams=("rgb",))
    features = FeatureSet(store, ("rgb",), prefix="v_")
    assert features.length("a") == 2 and features.length("b") == 3
    assert FeatureSet(store, ("rgb",)).length("test/v_b") == 3
    assert FeatureSet(store, ("rgb",)).length("test%2Fv_b") == 3
    with pytest.raises(UserError, match="'c' may be any of x%2Fv_c, y%2Fv_c"):
        features.read("c")
    assert FeatureSet(store, ("rgb",)).length("x/v_c") == 1

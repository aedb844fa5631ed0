"""Features of any network: patterns to ids, three kinds of files, grids against durations, damaged and odd files."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_extraction.errors import UserError
from feature_extraction.importing.convert import ImportSettings, import_features
from feature_extraction.importing.generic import parse_pattern, wildcard
from feature_extraction.store.grid import TimeGrid
from feature_extraction.store.stream import open_streams
from wtal.commands.main import main
from wtal.datasets.features import FeatureSet

GRID = ["--fps", "16", "--window", "16", "--stride", "8"]


def arrays(names, width, length=20, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((length + i, width)).astype(np.float32) for i, name in enumerate(names)}


def settings(kind, *patterns, **more):
    return ImportSettings(kind, grid=TimeGrid(16.0, 16, 8), patterns=tuple(map(parse_pattern, patterns)), **more)


def test_one_stream_of_any_width_with_folders_in_the_ids(tmp_path):
    made = arrays(["mon/a", "tue/a", "b"], 1408)
    for name, array in made.items():
        path = tmp_path / "in" / "mae" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    command = ["convert", "features", str(tmp_path / "in"), "--from", "npy", "--stream", "videomae=mae/**/*.npy"]
    assert main([*command, *GRID, "--out", str(tmp_path / "store")]) == 0
    features = FeatureSet(tmp_path / "store", ["videomae"])
    assert features.dims == {"videomae": 1408} and features.grid == TimeGrid(16.0, 16, 8)
    for name, array in made.items():
        np.testing.assert_array_equal(features.read(name)["videomae"], array.astype(np.float16))
    with pytest.raises(UserError, match="may be any of"):
        features.read("a")


def test_several_streams_npz_and_one_hdf5_file_of_all_videos(tmp_path):
    """The same arrays through npz files of two keys and through one HDF5 file come out the same."""
    image, sound = arrays(["a", "b"], 768, seed=1), arrays(["a", "b"], 2048, seed=2)
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "all.h5", "w") as file:
        for name in image:
            np.savez(tmp_path / "in" / f"{name}_f.npz", image=image[name], sound=sound[name], fps=np.float64(25))
            file[f"clips/{name}/image"], file[f"clips/{name}/sound"] = image[name][None], sound[name]
        file["note"] = "text is passed over"
    one = settings("npz", "siglip=*_f.npz:image", "panns=*_f.npz:sound")
    two = settings("hdf5", "siglip=all.h5:clips/*/image", "panns=all.h5:clips/*/sound")
    for number, kind in enumerate((one, two)):
        report = import_features(tmp_path / "in", tmp_path / f"store{number}", kind)
        assert (report.videos, report.written, report.failed) == (2, 2, {})
        features = FeatureSet(tmp_path / f"store{number}", ["siglip", "panns"])
        assert features.ids() == ["a", "b"] and features.dims == {"siglip": 768, "panns": 2048}
        for name in image:
            np.testing.assert_array_equal(features.read(name)["siglip"], image[name].astype(np.float16))
            np.testing.assert_array_equal(features.read(name)["panns"], sound[name].astype(np.float16))


def test_a_single_array_needs_no_key_and_several_do(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((9, 4), np.float32))
    assert import_features(tmp_path, tmp_path / "s", settings("npz", "f=*.npz")).written == 1
    np.savez(tmp_path / "b.npz", x=np.ones((9, 4)), y=np.ones((9, 4)))
    with pytest.raises(UserError, match=r"b.npz: it holds 2 arrays \(x, y\); say which with --stream f="):
        import_features(tmp_path, tmp_path / "s2", settings("npz", "f=*.npz"))


def test_time_grid_is_checked_against_durations(tmp_path, capsys):
    """Vectors every 8 frames at 16 a second are 0.5 s apart; said to be at 20 a second, all are a fifth too many."""
    (tmp_path / "in").mkdir()
    durations = {}
    for name, array in arrays(["a", "b", "c"], 16, length=60).items():
        np.save(tmp_path / "in" / f"{name}.npy", array)
        durations[name] = {"duration": 0.5 * len(array), "annotations": []}
    (tmp_path / "known.json").write_text(json.dumps({"database": durations}))
    command = ["convert", "features", str(tmp_path / "in"), "--from", "npy", "--stream", "f=*.npy", "--json"]
    command += ["--annotations", str(tmp_path / "known.json"), "--dry-run", "--out", str(tmp_path / "s")]
    for fps, off, ratio in (("16", 0, 1.0), ("12.8", 3, 1.25)):
        assert main([*command, "--fps", fps, "--window", "16", "--stride", "8"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert len(report["off_duration"]) == off and report["length_ratio"] == pytest.approx(ratio)


def test_streams_on_other_grids_are_brought_onto_one(tmp_path):
    """A steady sound feature every 10 ms becomes the same value on the snippets; ids come from one stream each."""
    np.save(tmp_path / "a.npy", np.full((1000, 4), 3.0, np.float32))
    more = {"source_fps": 100.0, "source_window": 1, "source_stride": 1}
    report = import_features(tmp_path, tmp_path / "s", settings("npy", "sound=*.npy", **more))
    array = open_streams(tmp_path / "s")["sound"].read("a")
    assert report.lengths == [len(array)] and abs(len(array) - 20) <= 1 and (array == 3).all()


def test_what_is_wrong_with_one_video_is_named_and_the_others_are_taken(tmp_path, capsys):
    folder = tmp_path / "in"
    for name, array in arrays(["a", "b", "c", "d"], 8).items():
        for kind in ("x", "y"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / kind / f"{name}.npy", array if kind == "x" else array[:, :4])
    (folder / "y" / "b.npy").unlink()
    np.save(folder / "y" / "c.npy", np.ones((40, 4), np.float32))
    np.save(folder / "x" / "d.npy", np.ones((23, 6), np.float32))
    command = ["convert", "features", str(folder), "--from", "npy", "--stream", "x=x/*.npy", "--stream", "y=y/*.npy"]
    assert main([*command, *GRID, "--json", "--out", str(tmp_path / "s")]) == 3
    out, err = capsys.readouterr()
    failed = json.loads(out)["failed"]
    assert set(failed) == {"b", "c", "d"} and "3 of 4 videos failed" in err
    assert "has no y beside it" in failed["b"] and "differ in length" in failed["c"]
    assert "6 features, where the first video has 8" in failed["d"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs at least one --stream"),
        (["--stream", "f=nothing/*.npy"], "nothing in"),
        (["--stream", "f"], "expected NAME=GLOB"),
        (["--stream", "f/g=*.npy"], "expected NAME=GLOB"),
        (["--stream", "f=/etc/*.npy"], "the pattern is below SOURCE"),
        (["--stream", "f=../*.npy"], "the pattern is below SOURCE"),
        (["--stream", "f=*.npy", "--stream", "f=*.npy"], "twice"),
        (["--stream", "f=*.npy:key"], "an npy file holds one array"),
        (["--stream", "f=*.npy", "--width", "9"], "8 features, where npy has 9"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, capsys, arguments, message):
    np.save(tmp_path / "a.npy", np.ones((9, 8), np.float32))
    command = ["convert", "features", str(tmp_path), "--from", "npy", *GRID, "--out", str(tmp_path / "s")]
    assert main([*command, *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_grid_is_asked_for(tmp_path, capsys):
    command = [
        "convert",
        "features",
        str(tmp_path),
        "--from",
        "npy",
        "--stream",
        "f=*.npy",
        "--out",
        str(tmp_path / "s"),
    ]
    assert main(command) == 2 and "give --fps, --window and --stride" in capsys.readouterr().err
    assert main([*command, "--fps", "25", "--stride", "16"]) == 2 and "needs --window" in capsys.readouterr().err


def test_damaged_files_and_pickles_are_refused(tmp_path, capsys):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "b.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    np.savez(tmp_path / "c.npz", x=np.array([{"a": 1}], dtype=object))
    for kind, pattern in (("npz", "a.npz"), ("hdf5", "*.h5"), ("npz", "c*.npz:x")):
        command = ["convert", "features", str(tmp_path), "--from", kind, "--stream", f"f={pattern}", *GRID]
        assert main([*command, "--out", str(tmp_path / "s")]) in (1, 2)
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and ("not a readable" in err)


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones((9, 4), np.float32)
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "a.h5", "w") as file:
        file["away"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        file["own"] = np.zeros((9, 4), np.float32)
    report = import_features(tmp_path / "in", tmp_path / "s", settings("hdf5", "f=*.h5:*"))
    assert report.videos == 1 and open_streams(tmp_path / "s")["f"].ids() == ["a%2Fown"]


def test_i3d_layouts_check_their_width(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.ones((9, 1408), np.float32))
    command = ["convert", "features", str(tmp_path), "--from", "actionformer", "--out", str(tmp_path / "s")]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "rgb: 704 features, where actionformer has 1024" in err and "--from npy --stream" in err
    assert main([*command, "--width", "704"]) == 0


@given(st.lists(st.text("ab_.", min_size=1, max_size=4), min_size=1, max_size=3))
def test_what_wildcards_match_is_what_was_written(parts):
    name = "/".join(parts)
    match = wildcard("x/**/*_f.npy").match(f"x/{name}_f.npy")
    assert match and "".join(match.groups()) == name

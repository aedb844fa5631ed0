"""Pickled object arrays read without unpickling: numpy's own, harmful and damaged ones."""

import struct

import numpy as np
import pytest

from feature_extraction.errors import UserError
from feature_extraction.importing.object_arrays import object_array_length, read_object_array

from ...fixtures.memory import peak
from ...places import SHARED
from .object_files import write_objects


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_object_arrays_equal_those_of_numpy(tmp_path, protocol):
    rng = np.random.default_rng(0)
    arrays = [
        rng.random((3, 4)),
        rng.random((50, 64)).astype(np.float32),
        np.asfortranarray(rng.random((5, 6))),
        rng.random((2, 3)).astype(">f4"),
        np.arange(12, dtype=np.int64).reshape(3, 4),
        np.zeros((0, 4), np.float16),
        rng.random((1, 1)),
    ]
    write_objects(tmp_path / "o.npy", arrays, protocol)
    wanted = np.load(tmp_path / "o.npy", allow_pickle=True)
    got = list(read_object_array(tmp_path / "o.npy"))
    assert object_array_length(tmp_path / "o.npy") == len(got) == len(arrays)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype.str[1:] == other.dtype.str[1:] and np.array_equal(one, other)


def test_numpy_own_writer_is_read(tmp_path):
    objects = np.empty(3, dtype=object)
    for index in range(3):
        objects[index] = np.full((index + 1, 4), index, np.float32)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    got = list(read_object_array(tmp_path / "o.npy"))
    assert [array.tolist() for array in got] == [array.tolist() for array in objects]


def test_a_file_of_python_2_is_read(tmp_path):
    # Put together by hand: Python 2 wrote bytes as its kind of text (BINSTRING), which Python 3 cannot write
    numbers = np.array([[1.5, -2.0], [3.25, 0.0]], "<f4")

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def dtype(code, order, flags):
        state = b"(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK" + flags + b"tb"
        return b"cnumpy\ndtype\n" + text(code) + b"K\x00K\x01\x87R" + state

    def array(shape, kind, data):
        start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        return start + b"(K\x01" + shape + kind + b"\x89" + data + b"tb"

    raw = numbers.tobytes()
    inner = array(b"K\x02K\x02\x86", dtype(b"f4", b"<", b"\x00"), b"T" + struct.pack("<i", len(raw)) + raw)
    body = b"\x80\x02" + array(b"K\x01\x85", dtype(b"O8", b"|", b"\x3f"), b"](" + inner + b"e") + b"."
    with open(tmp_path / "o.npy", "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        stream.write(body)
    assert np.array_equal(np.load(tmp_path / "o.npy", allow_pickle=True, encoding="latin1")[0], numbers)
    assert np.array_equal(next(read_object_array(tmp_path / "o.npy")), numbers)


def test_memory_is_that_of_one_array(tmp_path):
    rng = np.random.default_rng(0)
    write_objects(tmp_path / "o.npy", [rng.random((200, 512)) for _ in range(30)])
    size, one = (tmp_path / "o.npy").stat().st_size, 200 * 512 * 8
    most = peak(lambda: [None for _ in read_object_array(tmp_path / "o.npy")])
    assert most < 5 * one < size / 5


class Bomb:
    """Unpickled, it would make a file: the proof that code was run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_run(tmp_path):
    ran = tmp_path / "ran"
    good = np.ones((2, 4))
    for name, entries, words in [
        ("bomb.npy", [good, Bomb(ran)], r"holds a Python object \((io|_io|builtins).open\)"),
        ("text.npy", [good, "text"], "no arrays of numbers"),
        ("list.npy", [[1, 2]], "no arrays of numbers"),
        ("dict.npy", [{"a": 1}], "pickle instruction EMPTY_DICT"),
        ("names.npy", [np.array(["a", "b"])], "array of type 'U1'"),
        ("twice.npy", [good, good], "stand in it twice"),
    ]:
        write_objects(tmp_path / name, entries)
        with pytest.raises(UserError, match=words) as caught:
            list(read_object_array(tmp_path / name))
        assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not ran.exists()


def test_damaged_files_get_one_line(tmp_path):
    write_objects(tmp_path / "whole.npy", [np.ones((20, 30)), np.ones((5, 30))])
    whole = (tmp_path / "whole.npy").read_bytes()
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.npy"
    for size in [0, 3, 60, 128, 129, 200, 1000, len(whole) - 1]:
        damaged.write_bytes(whole[:size])
        with pytest.raises(UserError, match="damaged.npy") as caught:
            list(read_object_array(damaged))
        assert "\n" not in str(caught.value)
    for _ in range(300):  # whatever the bytes are: arrays or one clear line, no other error
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            content[at] = rng.integers(256)
        damaged.write_bytes(content)
        try:
            assert all(isinstance(array, np.ndarray) for array in read_object_array(damaged))
        except UserError as error:
            assert "\n" not in str(error)
    np.save(damaged, np.ones((2, 3)))
    with pytest.raises(UserError, match="expected a list of arrays"):
        list(read_object_array(damaged))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_object_array(tmp_path / "absent.npy"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data beside the checkout is absent")
def test_real_annotations_hold_no_arrays_and_say_so():
    folder = SHARED / "annotations" / "thumos14_npy" / "Thumos14reduced-Annotations"
    for name in ("segments", "labels", "labels_all"):
        assert object_array_length(folder / f"{name}.npy") == 412
        with pytest.raises(UserError, match="only arrays of numbers"):
            list(read_object_array(folder / f"{name}.npy"))


def test_sizes_and_depths_that_no_machine_has_get_one_line(tmp_path):
    """Instructions by hand: tuples 5000 deep, 2 ** 62 bytes to come, and a list as long as the header likes."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R"
    for name, length, body in [
        ("deep.npy", 2, b")" + b"\x85" * 5000 + b"\x94."),
        ("large.npy", 2, b"\x8e" + (2**62).to_bytes(8, "little") + b"abc."),
        ("long.npy", 10**13, b"\x89."),
        ("list.npy", 10**13, array + b"(K\x01K\x02\x85cnumpy\ndtype\n\x8c\x02O8\x85R\x89]tb."),
    ]:
        with open(tmp_path / name, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (length,)})
            stream.write(b"\x80\x04" + body)
        with pytest.raises(UserError, match=name) as caught:
            list(read_object_array(tmp_path / name))
        assert "\n" not in str(caught.value) and "()" not in str(caught.value)

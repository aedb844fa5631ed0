"""Small annotation files and feature stores in the layouts that people have."""

import pickle

import numpy as np

from feature_extraction.store.stream import create_stream


def object_array(entries):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def write_python2_objects(path, entries):
    """An object array as numpy under Python 2 wrote it: protocol 2, text as byte strings (opcode U)."""

    def short(data):
        return b"U" + bytes([len(data)]) + data

    def item(value):
        if isinstance(value, str):
            return short(value.encode())
        if isinstance(value, float):
            return b"G" + np.array(value, dtype=">f8").tobytes()
        return b"](" + b"".join(map(item, value)) + b"e"

    body = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
    body += b"(K\x01K" + bytes([len(entries)]) + b"\x85cnumpy\ndtype\n" + short(b"O8") + b"K\x00K\x01\x87R"
    body += b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89"
    body += b"](" + b"".join(map(item, entries)) + b"etb."
    header = np.lib.format.header_data_from_array_1_0(object_array(entries))
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(body)


def write_thumos_npy(folder, videos, python2=True, classes=("CliffDiving", "Diving")):
    """`videos`: name -> (subset, duration, labels_all, [(start, end, label)])."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = list(videos.values())
    np.save(folder / "classlist.npy", np.array([name.encode() for name in classes]))
    np.save(folder / "videoname.npy", np.array([name.encode() for name in videos]))
    np.save(folder / "subset.npy", np.array([entry[0].encode() for entry in entries]))
    np.save(folder / "duration.npy", np.array([[entry[1]] for entry in entries]))
    lists = {
        "labels_all": [list(entry[2]) for entry in entries],
        "labels": [[label for _, _, label in entry[3]] for entry in entries],
        "segments": [[[float(start), float(end)] for start, end, _ in entry[3]] for entry in entries],
    }
    for name, value in lists.items():
        if python2:
            write_python2_objects(folder / f"{name}.npy", value)
        else:
            np.save(folder / f"{name}.npy", object_array(value), allow_pickle=True)
    return folder


class Bomb:
    """Unpickling it makes the file `path`."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def write_bomb(path, target):
    """An object array whose unpickling makes `target`."""
    header = np.lib.format.header_data_from_array_1_0(object_array([[1]]))
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        pickle.dump([Bomb(target)], stream)


def write_store(root, lengths, streams=("rgb", "flow"), dim=4, stride=16, extra=None, seconds=None):
    """A feature store; `lengths` maps video id to snippets, `extra` (stream, id) to another number."""
    rng = np.random.default_rng(0)
    for name in streams:
        stream = create_stream(root, name, {"fps": 25.0, "window": 16, "stride": stride, "dim": dim})
        for video_id, length in lengths.items():
            size = (extra or {}).get((name, video_id), length)
            duration = (seconds or {}).get(video_id, size * 0.64)
            stream.write(video_id, rng.standard_normal((size, dim)), {"duration": duration})
    return root

"""Object arrays as files, the way that other projects keep their features."""

import pickle

import numpy as np


def write_objects(path, arrays, protocol=4):
    objects = np.empty(len(arrays), dtype=object)
    for index, array in enumerate(arrays):
        objects[index] = array
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(objects))
        pickle.dump(objects, stream, protocol=protocol)

"""Numbers that the published code of CO2-Net, DELU and UM made of made-up inputs: where they are, and reading them.

The whole set is a folder named by `WTAL_PARITY`, else `shared/data/parity` beside the checkout; without it the small
copies in `tests/fixtures/parity` serve, one case a method.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from .places import ROOT, SHARED

FOLDER = Path(os.environ.get("WTAL_PARITY") or SHARED / "parity")
SMALL = ROOT / "tests" / "fixtures" / "parity"


def cases(*names):
    """Parameters of a test: every named file of the whole set, and its small copy where there is one."""
    parameters = []
    for name in names:
        whole = pytest.mark.skipif(not (FOLDER / name).is_file(), reason=f"no {name}: set WTAL_PARITY to its folder")
        parameters.append(pytest.param(FOLDER / name, marks=whole, id=f"{name.partition('.')[0]}-whole"))
        if (SMALL / name).is_file():
            parameters.append(pytest.param(SMALL / name, id=f"{name.partition('.')[0]}-small"))
    return parameters


def read(path):
    """The arrays of an npz file by name."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def below(arrays, prefix):
    """The arrays whose names begin with `prefix/`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(prefix + "/")}

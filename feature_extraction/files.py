"""Files that are either whole or absent: written under a temporary name, fsynced, renamed."""

import errno
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from feature_extraction.errors import RunFailure, UserError, reason_of


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path`; on a clean exit fsync it and rename it to `path`.

    After a kill at any moment `path` holds its old content or the new one, never a part.
    """
    path = Path(path)
    handle, temporary = in_folder(
        path.parent, lambda: tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part")
    )
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename, error.filename2 = str(path), None  # a full disk's error names no file by itself
        raise


def in_folder(folder: Path, act: Callable[[], Any]) -> Any:
    """What `act` returns, with `folder` made where it is missing: another process may remove empty ones any time."""
    for _ in range(20):
        try:
            return act()
        except FileNotFoundError:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:
                continue  # its parent went away in between
    return act()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write `value` as UTF-8 JSON, whole or not at all. NaN and infinities are refused (`ValueError`)."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=indent, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_bytes(path: Path) -> bytes:
    """A file's content; one that is missing or cannot be read is a `UserError` that names it."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, line ends as they are. Raises `UserError` naming the file."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or malformed one is a `UserError` that names it."""
    try:
        return json.loads(read_bytes(path).decode("utf-8"))
    except RecursionError:
        raise UserError(f"{path}: not read, because its JSON is nested too deeply") from None
    except ValueError as error:  # also of a number of thousands of digits, which json does not wrap
        raise UserError(f"{path}: not valid JSON ({error})") from None


# What a place can lack, as opposed to what a program can do wrong
_PLACE = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOSPC,
    errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip


def place_failure(error: OSError, place: Path | None = None) -> RunFailure | None:
    """An error of a full disk, a missing right or a file in a folder's place as one line, or None for any other.

    The line names the error's own file, else `place`; None where there is neither.
    """
    named = error.filename if isinstance(error.filename, str) else place
    if error.errno not in _PLACE or named is None:
        return None
    return RunFailure(f"{named}: cannot be used ({error.strerror})")


def map_array(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped and read-only; nothing is unpickled.

    Raises `OSError` for a file that cannot be opened and `ValueError`, with the reason in one line, for any other
    content.
    """
    with open(path, "rb") as stream:
        start = stream.read(6)
    if start[:4] == b"PK\x03\x04":
        raise ValueError("an archive, expected one array")
    if start != b"\x93NUMPY":
        raise ValueError("no .npy file")
    try:
        with warnings.catch_warnings():  # numpy warns of headers that Python 2 wrote, and reads them
            warnings.simplefilter("ignore")
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:
        # A damaged header comes as anything from TokenError over MemoryError to AttributeError
        raise ValueError(reason_of(error, 120)) from None


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash8(value: Any) -> str:
    """First eight hexadecimal digits of the SHA-256 of `value`'s canonical JSON: a configuration's identity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]

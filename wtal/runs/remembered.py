"""The figures of a run's rows, kept for the next `wtal predict`: what follows from the same scores, truth, settings,
features and code is not measured again.

    measured.json   each row's figures and the hash of everything that they follow from; sealed

Scores that figures were remembered of are still compared with their hashes, so that damage is noticed as if they were
read. Of a training video's features, which choose the threshold of frame mIoU, size and time of change are looked at.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_extraction.errors import UserError
from feature_extraction.files import read_json, sha256_file, write_sealed
from feature_extraction.seal import canonical
from wtal.config.strict import plain
from wtal.datasets.features import FeatureSet
from wtal.runs.localizer import Localizer
from wtal.runs.measure import Videos
from wtal.runs.rows import rows_behind

Figures = dict[str, Any]


class Remembered:
    """The figures in a run folder by row. A damaged file is as good as none: its rows are measured anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        if path.is_file():
            with contextlib.suppress(UserError):  # damaged
                content = read_json(path)
                self._rows = content if isinstance(content, dict) else {}

    def figures(self, row: str, origin: str | None, measured: Callable[[], Figures]) -> Figures:
        """The row's figures from `origin` (None: nothing is remembered of it), measured where they are not known."""
        known = self._rows.get(row)
        if (
            origin
            and isinstance(known, dict)
            and known.get("from") == origin
            and isinstance(known.get("figures"), dict)
        ):
            figures = known["figures"]
        else:
            figures = measured()
        self._asked[row] = {"from": origin, "figures": figures}
        return figures

    def save(self) -> None:
        """Keep the rows that were asked for."""
        write_sealed(self.path, self._asked)


def origin_of(localizer: Localizer, row: str, features: FeatureSet, videos: Videos) -> str | None:
    """Hash of everything that the figures of a row follow from where its scores are stored; None where that cannot be
    told (a video classifier, which reads the features of every video)."""
    config = localizer.config
    if config.inference.video_classifier:
        return None
    tags = config.inference.class_tags
    names = rows_behind(config, row).names
    content = {
        "code": _code(),
        "versions": [np.__version__, torch.__version__, str(config.training.device), torch.cuda.is_available()],
        "config": plain(config),
        "classes": list(localizer.classes),
        "tags": sha256_file(Path(tags)) if tags else "",
        "scores": {name: localizer.fingerprint(name, list(videos.truth.videos)) for name in names},
        "truth": [_hash(repr(part)) for part in (videos.truth, videos.training)],
        "features": _hash(repr(features.state(list(videos.training.videos)))),
    }
    return _hash(canonical(content))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@functools.cache
def _code() -> str:
    """Hash of the program: other code may measure otherwise."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parents[2]
    for package in ("feature_extraction", "wtal"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()

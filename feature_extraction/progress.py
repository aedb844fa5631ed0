"""Progress of long work on standard error: a bar on a terminal, elsewhere (a log, a batch job) some lines."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

EVERY = 30.0
"""Seconds between the lines where there is no terminal; work that is done sooner prints none."""
ROWS, COLUMNS = 24, 80
"""Taken for a terminal that says it has none: a bar would then be hidden for want of space."""


class _Lines:
    """A stream that makes lines of what a bar draws over itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        line = text.replace("\r", "").strip()
        if line:
            self._stream.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def progress(
    iterable: Iterable[Any] | None = None, *, shown: bool = True, count: str = "{n_fmt}", **options: Any
) -> tqdm:
    """A `tqdm` with `options` of tqdm; `shown=False` (another process shows it) is silent.

    `count` is how the number of things done is written, as in tqdm's `bar_format`.
    """
    if not shown:
        return tqdm(iterable, disable=True, **options)
    if sys.stderr.isatty():
        return tqdm(iterable, **{**_shape(), **_bar_format(count, options), **options})
    things = "" if options["unit"] == "B" else f" {options['unit']}s"
    line = f"{{desc}}: {count} of {{total_fmt}}{things}, {{rate_fmt}}, {{elapsed}} gone, {{remaining}} left{{postfix}}"
    return tqdm(
        iterable,
        **{
            **options,
            "file": _Lines(sys.stderr),
            "bar_format": line,
            "mininterval": EVERY,
            "maxinterval": EVERY,
            "miniters": 1,
            "delay": EVERY,
            "ascii": True,
        },
    )


def _bar_format(count: str, options: dict[str, Any]) -> dict[str, str]:
    if count == "{n_fmt}":
        return {}
    unit = options["unit"]
    return {"bar_format": f"{{l_bar}}{{bar}}| {count}/{{total_fmt}} {unit}s [{{elapsed}}<{{remaining}}{{postfix}}]"}


def _shape() -> dict[str, int]:
    """Rows and columns for a terminal that says it has none; nothing where it knows them."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return {"nrows": ROWS, "ncols": COLUMNS}
    return {} if size.lines > 0 and size.columns > 0 else {"nrows": ROWS, "ncols": COLUMNS}

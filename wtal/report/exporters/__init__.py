"""Detections for other tools: one file a format, each a function `(videos, out folder) -> files written`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from wtal.report.exporters import csv, elan, fiftyone, label_studio, via, vtt
from wtal.report.interchange import LabelledVideo

EXPORTERS: dict[str, Callable[[Sequence[LabelledVideo], Path], list[Path]]] = {
    # `wtal export --to NAME`: function
    "csv": csv.export,
    "vtt": vtt.export,
    "label-studio": label_studio.export,
    "fiftyone": fiftyone.export,
    "via": via.export,
    "elan": elan.export,
}

"""Detections for other tools: one file a format, each a function `(videos, out folder) -> files written`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from wtal.datasets.annotations import AnnotationSet, read_activitynet
from wtal.datasets.interchange import csv, elan, fiftyone, label_studio, via, vtt
from wtal.datasets.interchange.labelled import LabelledVideo

EXPORTERS: dict[str, Callable[[Sequence[LabelledVideo], Path], list[Path]]] = {
    # `wtal export --to NAME`: function
    "csv": csv.export,
    "vtt": vtt.export,
    "label-studio": label_studio.export,
    "fiftyone": fiftyone.export,
    "via": via.export,
    "elan": elan.export,
}


IMPORTERS: dict[str, Callable[[Path], AnnotationSet]] = {
    # `wtal import --from NAME`: function
    "activitynet": read_activitynet,
    "csv": csv.read,
    "via": via.read,
    "label-studio": label_studio.read,
    "elan": elan.read,
}

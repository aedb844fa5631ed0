"""A dataset format: one text file a video, as audio editors write label tracks; the folder's name is the subset.

training/a.txt      1.5<tab>4.0<tab>Jump
                    6.0<tab>7.5<tab>Throw
"""

from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import read_text
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation


def read_label_tracks(path: Path, extra: Path | None) -> AnnotationSet:
    """Read `<subset>/<video id>.txt` under `path`; times in seconds, durations unknown, classes in alphabetical order.

    Raises `UserError` naming file and line for what is not `start<tab>end<tab>label`, and for a second path.
    """
    if extra is not None:
        raise UserError(f"{extra}: label tracks have no second path; leave data.annotations_extra empty")
    videos = {}
    for file in sorted(Path(path).glob("*/*.txt")):
        lines = enumerate(read_text(file).split("\n"), 1)
        instances = tuple(_instance(f"{file}, line {number}", line) for number, line in lines if line.strip())
        labels = tuple(dict.fromkeys(instance.label for instance in instances))
        videos[file.stem] = VideoAnnotation(file.stem, file.parent.name, labels, instances, None)
    return AnnotationSet(tuple(sorted({label for video in videos.values() for label in video.labels})), videos)


def _instance(where: str, line: str) -> Instance:
    try:
        start, end, label = line.split("\t")
        instance = Instance(float(start), float(end), label.strip())
    except ValueError:
        raise UserError(f"{where}: expected start, end and label with tabs between, got {line!r}") from None
    if not (0 <= instance.start <= instance.end < float("inf") and instance.label):
        raise UserError(f"{where}: a segment needs 0 <= start <= end and a label, got {line!r}")
    return instance

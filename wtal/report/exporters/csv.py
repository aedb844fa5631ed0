"""One table `detections.csv`: video, label, start, end, score; times in seconds."""

import csv
from collections.abc import Sequence
from pathlib import Path

from feature_extraction.files import atomic_write
from wtal.report.interchange import LabelledVideo


def export(videos: Sequence[LabelledVideo], out: Path) -> list[Path]:
    """Numbers are written in full (`repr`), so that reading the table back gives the same values."""
    path = out / "detections.csv"
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(["video", "label", "start", "end", "score"])
        for video in videos:
            for i in video.intervals:
                score = "" if i.score is None else repr(float(i.score))
                writer.writerow([video.video_id, i.label, repr(float(i.start)), repr(float(i.end)), score])
    return [path]

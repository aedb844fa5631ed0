"""WebVTT, one file a video: a cue for each detection, shown by players as subtitles or chapters."""

import re
from collections.abc import Sequence
from pathlib import Path

from feature_extraction.files import atomic_write
from wtal.datasets.interchange.labelled import LabelledVideo
from wtal.datasets.interchange.names import file_names


def export(videos: Sequence[LabelledVideo], out: Path) -> list[Path]:
    """Cues in order of time; text is the label and the score. An interval shorter than 1 ms is given 1 ms."""
    names = file_names(video.video_id for video in videos)
    paths = []
    for video in videos:
        path = out / f"{names[video.video_id]}.vtt"
        with atomic_write(path, "w") as stream:
            stream.write("WEBVTT\n")
            for i in sorted(video.intervals, key=lambda i: (i.start, i.end, i.label)):
                start = round(i.start * 1000)
                end = max(start + 1, round(i.end * 1000))
                score = "" if i.score is None else f" ({i.score:.2f})"
                stream.write(f"\n{timestamp(start)} --> {timestamp(end)}\n{cue_text(i.label)}{score}\n")
        paths.append(path)
    return paths


def timestamp(milliseconds: int) -> str:
    """`hh:mm:ss.mmm`."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{rest:03d}"


def cue_text(label: str) -> str:
    """A label as cue text: markup as character references, a line break as `&#10;` (a blank line would end
    the cue)."""
    text = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub("[\x00-\x1f\x7f\u0085\u2028\u2029]", lambda sign: f"&#{ord(sign[0])};", text)

"""The small timeline of one video in the index: ground truth above, detections below, as inline SVG."""

from collections.abc import Sequence

from markupsafe import Markup

from wtal.report.data import ReportVideo

WIDTH = 240
SHOWN = 40
"""Detections drawn, surest first: more cannot be told apart at this size."""


def strip(video: ReportVideo, classes: Sequence[str]) -> Markup:
    """An SVG of `WIDTH` units over the video's length; colours by class as on the video's page."""
    index = class_numbers(video, classes)
    length = (
        max([video.duration, *(d.end for d in video.detections), *(t.end for t in video.ground_truth or ())])
        or 1.0
    )
    bars = [(t.start, t.end, index[t.label], 0, 1.0) for t in video.ground_truth or ()]
    surest = sorted(video.detections, key=lambda d: -d.score)[:SHOWN]
    top = max((d.score for d in surest), default=0.0) or 1.0
    bars += [
        (d.start, d.end, index[d.label], 1, 0.25 + 0.75 * max(0.0, d.score / top)) for d in reversed(surest)
    ]
    rows = 2 if video.ground_truth is not None else 1
    cells = Markup("").join(
        Markup(
            '<rect class="class-{}" x="{:.1f}" y="{}" width="{:.1f}" height="7" fill-opacity="{:.2f}"/>'
        ).format(
            c % 8,
            WIDTH * start / length,
            1 + 9 * (lane if rows == 2 else 0),
            max(1.0, WIDTH * (end - start) / length),
            alpha,
        )
        for start, end, c, lane, alpha in bars
    )
    height = 9 * rows + 1
    return Markup(
        '<svg class="strip" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(WIDTH, height, cells)


def class_numbers(video: ReportVideo, classes: Sequence[str]) -> dict[str, int]:
    """Number of each class, the colour's; names that the run does not know (another class list) come
    after."""
    named = {
        *video.labels,
        *(t.label for t in video.ground_truth or ()),
        *(d.label for d in video.detections),
    }
    return {name: i for i, name in enumerate([*classes, *sorted(named - set(classes))])}

"""Results as plain text. Percent with two digits, the way papers print them; JSON carries fractions."""

from collections.abc import Sequence

from wtal.evaluation.detection import DetectionResult
from wtal.evaluation.frame_miou import FrameMIoU


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, the first to the left and the others to the right."""
    lines = [list(map(str, header)), *[list(map(str, row)) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def percent(value: float | None) -> str:
    """A fraction as percent; `-` where there is none."""
    return "-" if value is None or value != value else f"{100 * value:.2f}"


def evaluation_table(
    result: DetectionResult, frames: FrameMIoU | None = None, per_class: bool = False
) -> str:
    """mAP by threshold and its averages, with the protocol's name; AP of each class if asked for."""
    header = [f"mAP % ({result.protocol})", *(f"@{threshold:g}" for threshold in result.tiou), "mean"]
    rows = [["all classes", *map(percent, result.mAP), percent(result.average_mAP)]]
    if per_class:
        means = result.ap_KC.mean(axis=0)
        rows += [
            [name, *map(percent, result.ap_KC[:, c]), percent(means[c])]
            for c, name in enumerate(result.classes)
        ]
    parts = [text_table(header, rows)]
    if result.averages:
        parts.append(
            "averages: " + "   ".join(f"{name} {percent(value)}" for name, value in result.averages.items())
        )
    if frames is not None:
        parts.append(
            f"frame mIoU %: foreground {percent(frames.foreground)}   background {percent(frames.background)}"
        )
    parts.append(
        f"{result.videos} videos, {int(result.instances_C.sum())} instances of {len(result.classes)} classes, "
        f"{result.detections} detections"
    )
    return "\n".join(parts)

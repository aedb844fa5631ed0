"""Results as plain text. Percent with two digits, the way papers print them; JSON carries fractions."""

from collections.abc import Sequence

from wtal.evaluation.bootstrap import BootstrapResult, Comparison, Interval
from wtal.evaluation.classification import ClassificationResult
from wtal.evaluation.detection.protocols import DetectionResult
from wtal.evaluation.diagnosis.diagnose import KINDS, Diagnosis
from wtal.evaluation.frame_miou import FrameMIoU
from wtal.evaluation.proposals import POINTS, AverageRecall


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, the first to the left and the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def padded(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join(map(padded, lines))


def percent(value: float | None) -> str:
    """A fraction as percent; `-` where there is none."""
    return "-" if value is None or value != value else f"{100 * value:.2f}"


def evaluation_table(
    result: DetectionResult,
    frames: FrameMIoU | None = None,
    per_class: bool = False,
    bootstrap: BootstrapResult | None = None,
    proposals: AverageRecall | None = None,
    videos: ClassificationResult | None = None,
) -> str:
    """mAP by threshold and its averages, with the protocol's name, and what else was measured."""
    rows = [["all classes", *map(percent, result.mAP), percent(result.average_mAP)]]
    if bootstrap is not None:
        name = f"  {100 * bootstrap.settings.confidence:g} % interval"
        intervals = (*bootstrap.mAP, bootstrap.average_mAP)
        rows.append([f"{name}, low", *(percent(interval.low) for interval in intervals)])
        rows.append([f"{name}, high", *(percent(interval.high) for interval in intervals)])
    if per_class:
        means = result.ap_KC.mean(axis=0)
        for c, name in enumerate(result.classes):
            rows.append([name, *map(percent, result.ap_KC[:, c]), percent(means[c])])
    parts = [text_table(_header(f"mAP % ({result.protocol})", result.tiou), rows)]
    if result.averages:
        values = (f"{name} {percent(value)}" for name, value in result.averages.items())
        parts.append("averages: " + "   ".join(values))
    if frames is not None:
        parts.append(f"frame mIoU %: foreground {percent(frames.foreground)}   background {percent(frames.background)}")
    if proposals is not None:
        points = "   ".join(f"AR@{n} {percent(proposals.at(n))}" for n in POINTS)
        parts.append(f"proposals %: {points}   AUC {percent(proposals.auc)}")
    if videos is not None:
        parts.append(
            f"video labels %: mAP {percent(videos.mAP)}   hit@1 {percent(videos.hit_at_1)}   GAP {percent(videos.gap)}"
        )
    parts.append(
        f"{result.videos} videos, {int(result.instances_C.sum())} instances of "
        f"{len(result.classes)} classes, {result.detections} detections"
    )
    return "\n".join(parts)


def comparison_table(comparison: Comparison) -> str:
    """mAP of both and the difference with its interval, one column a threshold."""
    first, second = comparison.first, comparison.second
    settings = first.settings

    def line(name: str, each: Sequence[Interval], average: Interval) -> list[str]:
        return [name, *(percent(interval.value) for interval in (*each, average))]

    intervals = (*comparison.difference, comparison.average_difference)
    rows = [
        line("first", first.mAP, first.average_mAP),
        line("second", second.mAP, second.average_mAP),
        line("second - first", comparison.difference, comparison.average_difference),
        ["  low", *(percent(interval.low) for interval in intervals)],
        ["  high", *(percent(interval.high) for interval in intervals)],
    ]
    return (
        text_table(_header(f"mAP % ({first.result.protocol})", first.result.tiou), rows)
        + f"\n{100 * settings.confidence:g} % intervals, {settings.resamples} paired draws of the videos; "
        + f"p-value of no difference in the mean: {comparison.p_value:.3g}"
    )


def diagnosis_table(diagnosis: Diagnosis) -> str:
    """False positives by type, then what is found and missed by length, coverage and count."""
    thresholds = ", ".join(f"{threshold:g}" for threshold in diagnosis.tiou)
    shares = diagnosis.shares
    parts = [
        f"activitynet protocol, tIoU {thresholds}: mAP {percent(diagnosis.mAP)} %; of the best-scored "
        f"{diagnosis.detections} detections AP_N {percent(diagnosis.mAP_n)} %, "
        f"{percent(diagnosis.missed)} % of the instances missed",
        text_table(
            ["detections", "share %", "AP_N gain if gone"],
            [
                [
                    kind,
                    percent(shares[kind]),
                    f"{100 * diagnosis.impact[kind]:+.2f}" if kind in diagnosis.impact else "-",
                ]
                for kind in KINDS
            ],
        ),
    ]
    for name, reports in diagnosis.bins.items():
        rows = [[r.label, str(r.instances), percent(r.ap_n), percent(r.missed)] for r in reports]
        parts.append(text_table([f"{name} ({diagnosis.units[name]})", "instances", "AP_N %", "missed %"], rows))
    if diagnosis.confusions:
        rows = [[f"{predicted} for {actual}", str(n)] for predicted, actual, n in diagnosis.confusions[:5]]
        parts.append(text_table(["most frequent confusions", "detections"], rows))
    return "\n\n".join(parts)


def _header(name: str, tiou: Sequence[float]) -> list[str]:
    return [name, *(f"@{threshold:g}" for threshold in tiou), "mean"]

"""The lines of `metrics.jsonl` as the charts of the report: losses and frame mIoU over the alternation."""

from collections.abc import Mapping, Sequence
from typing import Any

from wtal.report.data import Chart, Curve

POINTS = 400
"""Points drawn of one curve; more cannot be told apart. The last one is always among them."""
BRANCHES = {"warmup": "CBP", "F": "CBP", "B": "VLP"}
"""First part of a phase's name: the branch that it trains."""


def training_charts(records: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """Charts of those numbers that the records hold; none for an empty log."""
    phases = phase_bands(records)
    train = [record for record in records if record.get("kind") == "train"]
    names = list(
        dict.fromkeys(key for record in train for key, value in record.items() if _is_number(key, value))
    )
    charts = [
        Chart(f"Loss: {name}" if name != "loss" else "Loss", name, (_curve(name, train, name),), phases)
        for name in names
    ]
    ends = [record for record in records if record.get("kind") == "phase_end"]
    quality = [
        _curve(f"{branch} {side}", [r for r in ends if _branch(r) == branch], key)
        for branch in ("CBP", "VLP")
        for key, side in (("fg_miou", "foreground"), ("bg_miou", "background"))
    ]
    labels = [record for record in records if record.get("kind") == "pseudo_labels"]
    label_quality = [
        _curve(side, labels, key) for key, side in (("fg_miou", "foreground"), ("bg_miou", "background"))
    ]
    shares = [_curve(name, labels, name) for name in ("foreground", "background", "uncertain")]
    charts += [
        Chart("Frame mIoU of the branches, training videos", "mIoU", _filled(quality), phases, True),
        Chart(
            "Frame mIoU of the pseudo-labels, training videos", "mIoU", _filled(label_quality), phases, True
        ),
        Chart(
            "Pseudo-labels: shares of the labelled classes' snippets", "share", _filled(shares), phases, True
        ),
    ]
    return tuple(chart for chart in charts if chart.curves)


def phase_bands(records: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, float, float], ...]:
    """(name, first step, last step) of every phase in the log, in order, each beginning where the one
    before ends."""
    ends: dict[str, float] = {}
    for record in records:
        if record.get("kind") in ("train", "phase_end"):
            name = str(record["phase"])
            ends[name] = max(ends.get(name, 0.0), float(record["step"]))
    bands, start = [], 0.0
    for name, end in ends.items():
        bands.append((name, start, end))
        start = end
    return tuple(bands)


def _curve(name: str, records: Sequence[Mapping[str, Any]], key: str) -> Curve:
    points = [(float(r["step"]), r[key]) for r in records if isinstance(r.get(key), (int, float))]
    step = max(1, -(-len(points) // POINTS))
    chosen = points[::-step][::-1]
    return Curve(name, tuple(p[0] for p in chosen), tuple(float(p[1]) for p in chosen))


def _filled(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    return tuple(curve for curve in curves if curve.steps)


def _branch(record: Mapping[str, Any]) -> str:
    return BRANCHES.get(str(record["phase"]).rstrip("0123456789"), "")


def _is_number(key: str, value: object) -> bool:
    return key != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)

"""The diagnosis as figures: false positives, sensitivity, false negatives. SVG and PNG."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write
from wtal.evaluation.diagnosis.diagnose import ERRORS, KINDS, Diagnosis

# The six kinds in the order of KINDS; told apart by lightness too, for print and for colour-blind readers.
COLOURS = ("#1b9e77", "#7570b3", "#e7298a", "#e6ab02", "#d95f02", "#999999")


def write_figures(diagnosis: Diagnosis, folder: Path) -> list[Path]:
    """Write `false_positives`, `sensitivity` and `false_negatives` as SVG and PNG; returns their paths."""
    drawn = {
        "false_positives": _false_positives(diagnosis),
        "sensitivity": _by_bin(diagnosis, "ap_n", "AP_N (%)", diagnosis.mAP_n),
        "false_negatives": _by_bin(diagnosis, "missed", "instances missed (%)", diagnosis.missed),
    }
    written = []
    for name, figure in drawn.items():
        for suffix in ("svg", "png"):
            path = Path(folder) / f"{name}.{suffix}"
            # no date and no random ids in the file: the same diagnosis gives the same bytes
            metadata = {"Date": None} if suffix == "svg" else None
            try:
                with rc_context({"svg.hashsalt": "wtal"}), atomic_write(path) as stream:
                    figure.savefig(stream, format=suffix, dpi=150, metadata=metadata)
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error.strerror})") from None
            written.append(path)
    return written


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _false_positives(diagnosis: Diagnosis) -> Figure:
    figure = _figure(10, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    counts = np.cumsum(diagnosis.profile, axis=0)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    positions = np.arange(1, len(shares) + 1)
    bottom = np.zeros(len(shares))
    for index, kind in enumerate(KINDS):
        left.bar(positions, shares[:, index], 0.8, bottom, color=COLOURS[index], label=kind)
        bottom += shares[:, index]
    left.set_xticks(positions, [f"{position}G" for position in positions])
    left.set_xlabel("best-scored detections of each class (G: its ground truths)")
    left.set_ylabel("share of detections (%)")
    left.set_ylim(0, 100)
    left.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False)
    kinds = [KINDS[error] for error in ERRORS]
    gains = [100 * diagnosis.impact[kind] for kind in kinds]
    bars = right.bar(kinds, gains, color=[COLOURS[error] for error in ERRORS])
    right.bar_label(bars, [f"{gain:.1f}" for gain in gains], fontsize="small")
    right.set_ylabel("gain in AP_N if gone (points)")
    right.tick_params(axis="x", rotation=30)
    right.margins(y=0.15)
    return figure


def _by_bin(diagnosis: Diagnosis, field: str, ylabel: str, overall: float) -> Figure:
    figure = _figure(1.5 + 3.2 * len(diagnosis.bins), 3.6)
    panels = figure.subplots(1, len(diagnosis.bins), sharey=True, squeeze=False)[0]
    for panel, (name, reports) in zip(panels, diagnosis.bins.items(), strict=True):
        heights = [100 * (getattr(report, field) or 0.0) for report in reports]
        bars = panel.bar(range(len(reports)), heights, color=COLOURS[0])
        marks = [
            "no instance" if not report.instances else f"{h:.1f}" for h, report in zip(heights, reports, strict=True)
        ]
        panel.bar_label(bars, marks, fontsize="small")
        ticks = [f"{report.label.replace(' ', chr(10), 1)}\nn={report.instances}" for report in reports]
        panel.set_xticks(range(len(reports)), ticks, fontsize="x-small")
        panel.axhline(100 * overall, color="black", linewidth=0.8, linestyle="--", label="all instances")
        panel.set_xlabel(f"{name} ({diagnosis.units[name]})")
        panel.margins(y=0.15)
    panels[0].set_ylabel(ylabel)
    panels[0].legend(fontsize="small", frameon=False)
    return figure

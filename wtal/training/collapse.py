"""Pseudo-labels that say nothing any more: nearly all of the labelled snippets foreground, or nearly none."""

from collections.abc import Iterable, Mapping
from typing import Any

from wtal.config.training import PseudoLabelSettings

MOST, LEAST = 0.9, 0.01
"""Shares of foreground among the snippets of labelled classes between which pseudo-labels can teach."""


def collapse(foreground: float, phase: str, settings: PseudoLabelSettings) -> str | None:
    """What is wrong with pseudo-labels of this share of foreground, and what to change; None where nothing is."""
    if LEAST <= foreground <= MOST:
        return None
    said = f"pseudo-labels of phase {phase} have collapsed: {foreground:.1%} of the labelled snippets are foreground"
    if foreground > MOST:
        room = settings.high + (1 - settings.high) / 2
        return (
            f"{said}, so that the branch learns to say yes everywhere; set pseudo_labels.high={room:.2g}, or "
            "schedule.rounds=1, or give training videos with more around the action, and negatives"
        )
    return (
        f"{said}, so that the branch learns to say no everywhere; set pseudo_labels.high={settings.high / 2:.2g} "
        f"pseudo_labels.low={settings.low / 2:.2g}, or pseudo_labels.adaptive=true"
    )


def collapses(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The warnings that a run's metrics hold, the last one of each kind with the number of phases it is true of."""
    found = [record for record in records if record.get("kind") == "pseudo_labels" and record.get("warning")]
    last = {record["foreground"] > MOST: record["warning"] for record in found}
    counts = {kind: sum((record["foreground"] > MOST) == kind for record in found) for kind in last}
    return [text + (f" (so in {counts[kind]} phases)" if counts[kind] > 1 else "") for kind, text in last.items()]

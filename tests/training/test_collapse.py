"""Collapsed pseudo-labels are said so, once a kind, with what to change."""

import pytest

from wtal.config.training import PseudoLabelSettings
from wtal.training.collapse import collapse, collapses


@pytest.mark.parametrize(
    ("foreground", "said"), [(0.95, "pseudo_labels.high=0.65"), (0.001, "pseudo_labels.high=0.15"), (0.5, None)]
)
def test_the_warning_names_a_setting(foreground, said):
    text = collapse(foreground, "B1", PseudoLabelSettings())
    assert text is None if said is None else said in text and "phase B1" in text and f"{foreground:.1%}" in text


@pytest.mark.parametrize("settings", [{}, {"high": 0.9, "low": 0.8}, {"high": 0.02, "low": 0.01}])
@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_what_is_proposed_can_be_set(settings, foreground):
    before = PseudoLabelSettings(**settings)
    words = collapse(foreground, "B1", before).replace(",", " ").split()
    changes = dict(
        word.removeprefix("pseudo_labels.").split("=") for word in words if word.startswith("pseudo_labels.")
    )
    changed = {name: float(value) for name, value in changes.items() if name in ("high", "low")}
    assert PseudoLabelSettings(**{"low": before.low, "high": before.high} | changed) != before


def test_a_run_says_each_kind_once():
    records = [
        {"kind": "pseudo_labels", "phase": f"B{n}", "foreground": share, "warning": f"warning {n}"}
        for n, share in enumerate([0.95, 0.97, 0.001])
    ]
    quiet = [{"kind": "pseudo_labels", "phase": "F1", "foreground": 0.4}, {"kind": "train", "loss": 1.0}]
    assert collapses([*records, *quiet]) == ["warning 1 (so in 2 phases)", "warning 2"]

"""The attack as a tool, in its short form: nothing comes through, and what comes through is told."""

import os
import subprocess
import sys

from .places import ROOT

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last, so that an installed wtal stays the one that is tested
from tools.torture_parts import flip, ground  # noqa: E402


def test_a_short_attack_finds_nothing(tmp_path):
    told = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "torture.py"), "--minutes", "0.1", "--keep", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, env=_environment(),
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-2000:]
    lines = dict(line.split(maxsplit=1)[::-1] for line in told.stdout.splitlines())
    assert int(lines["mutations"]) > 30 and int(lines["flips and cuts noticed"]) > 5
    assert any(name.startswith("breaks of train") for name in lines)
    assert "came through" in told.stdout and list(tmp_path.iterdir()) == []


def test_what_comes_through_is_told(tmp_path, monkeypatch):
    """With a reader that believes everything, the attack finds it."""
    ground.make_world(tmp_path, 0)
    path = tmp_path / "text.npz"
    monkeypatch.setattr(flip, "kinds", lambda *_: {"believed": (path, path.read_bytes)})
    tally = ground.Tally()
    tally.count("flips and cuts noticed")
    flip.attack(tmp_path, path, flip.time.monotonic() + 0.1, 0, tally)
    assert tally.misses and "unnoticed" in tally.misses[0]


def _environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}

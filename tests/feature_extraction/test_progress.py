"""Progress: lines in a log, a bar on a terminal, also on one that says it has no rows."""

import io
import os
import struct
import subprocess
import sys

import pytest

from feature_extraction import progress as module
from feature_extraction.progress import progress


def run(steps=5, **options):
    with progress(total=steps, desc="train", unit="step", **options) as bar:
        for number in range(steps):
            bar.update()
            bar.set_description_str(f"B1 loss {number / 10:.3f}", refresh=False)


def test_a_log_gets_lines_with_what_is_done_the_rate_and_the_time_left(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(module, "EVERY", 0.0)
    run()
    lines = log.getvalue().splitlines()
    assert len(lines) >= 5 and "\r" not in log.getvalue()
    assert any("B1 loss 0.200: 4 of 5 steps" in line and "left" in line and "/s" in line for line in lines), lines


def test_work_that_is_soon_done_says_nothing_in_a_log(capfd):
    run()
    assert capfd.readouterr().err == ""


def test_a_process_that_is_not_shown_says_nothing(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(module, "EVERY", 0.0)
    run(shown=False)
    assert log.getvalue() == ""


@pytest.mark.parametrize("shape", [(0, 0), (24, 80)])
def test_a_terminal_has_a_bar_even_with_no_rows(shape):
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *shape, 0, 0))
    code = "from feature_extraction.progress import progress\nfor _ in progress(range(3), desc='x', unit='step'): pass"
    subprocess.run([sys.executable, "-c", code], stderr=slave, check=True)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:
        pass  # the other side is closed
    os.close(master)
    assert b"100%" in shown and b"3/3" in shown

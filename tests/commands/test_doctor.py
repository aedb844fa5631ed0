"""The doctor: sees what is wrong, says what to do, and is not stopped by a check that breaks."""

import json
import os

import pytest

from wtal.commands import doctor
from wtal.commands.main import main


def test_every_check_runs_here(tmp_path):
    findings = doctor.examine(tmp_path)
    about = {finding.about for finding in findings}
    assert about >= {"python", "packages", "devices", "codecs", "decoders", "optical flow", "weights"}
    assert not [finding.text for finding in findings if "the check itself failed" in finding.text]
    assert all(finding.advice for finding in findings if finding.state != doctor.OK)
    read_back = [finding for finding in findings if finding.about == "decoders"]
    assert [finding.state for finding in read_back] == [doctor.OK, doctor.OK]


def test_a_missing_package_is_a_problem(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", {"packages": doctor._packages})
    monkeypatch.setattr(doctor, "PACKAGES", {"numpy": "numpy", "no-such-thing": "no_such_module_of_ours"})
    assert main(["doctor", "--json", "--out", str(tmp_path)]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["state"] == "ok" and bad["state"] == "problem"
    assert "no_such_module_of_ours" in bad["text"] and "pip install" in bad["advice"]


def test_a_check_that_breaks_is_a_finding(tmp_path, monkeypatch, capsys):
    def broken(out):
        raise RuntimeError("libGL.so.1:\ncannot open shared object file")

    monkeypatch.setattr(doctor, "CHECKS", {"codecs": broken, "python": doctor._python})
    assert main(["doctor", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "libGL.so.1: cannot open shared object file" in out
    assert "ok       python" in out and "1 problem" in out


def test_two_decords_clash(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if "decord" in name else None)
    (finding,) = doctor._clashes(tmp_path)
    assert finding.state == doctor.PROBLEM and "pip uninstall decord decord2" in finding.advice


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        state = {finding.text: finding.state for finding in doctor._writing(tmp_path / "runs")}
    finally:
        tmp_path.chmod(0o700)
    assert any("cannot be written" in text and value == doctor.PROBLEM for text, value in state.items())

"""What the command line's help and the README say is there."""

import re

import pytest

from wtal.commands.main import COMMANDS, main
from wtal.datasets.interchange.tools import EXPORTERS, IMPORTERS

from ..places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def help_of(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")  # no line breaks inside of names

    def read(command):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        return capsys.readouterr().out

    return read


@pytest.mark.parametrize("command", COMMANDS)
def test_documents_named_in_help_exist(help_of, command):
    named = re.findall(r"docs/[\w.-]*\w", help_of(command))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_documents_named_in_the_readme_exist():
    named = set(re.findall(r"docs/[\w.-]*\w", README))
    assert named and [name for name in named if not (ROOT / name).is_file()] == []


def test_the_readme_names_the_formats_of_export_and_import():
    (row,) = re.findall(r"^\| .*`wtal import`.*$", README, re.MULTILINE)
    out, back = re.search(r"detections to ([\w, -]+); annotations from ([\w, -]+) \|", row).groups()
    assert out.split(", ") == list(EXPORTERS)
    assert {*back.split(", "), "activitynet"} == set(IMPORTERS)


def test_demo_takes_as_long_as_the_readme_says(help_of):
    (minutes,) = re.findall(r"it takes (under \w+ minutes) on two CPU cores", README)
    assert minutes in help_of("demo")


def test_check_takes_one_source_as_the_readme_says(capsys):
    (usage,) = re.findall(r"`wtal check ([^`]+)`", README)
    assert usage == "DATA [--against OTHER]"
    with pytest.raises(SystemExit):
        main(["check", "one.json", "two.json"])
    assert "two.json" in capsys.readouterr().err

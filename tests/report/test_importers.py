"""Imports of tables as people write them, and of files with nothing in them."""

import pytest

from feature_extraction.errors import UserError
from wtal.cli import main
from wtal.datasets.annotations import Instance
from wtal.report.importers import IMPORTERS


@pytest.mark.parametrize(
    "text",
    ["Video, Label ,START, end\na, run, 1, 2\n", "video;LABEL;start;end;note, free\na;run;1;2;b, c, d\n"],
)
def test_csv_header_in_any_case_and_with_blanks(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    assert IMPORTERS["csv"](tmp_path / "a.csv").videos["a"].instances == (Instance(1.0, 2.0, "run"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label,start,end\na,x,1,2\na,x, y,1,2\n", "line 3: '2' is in no column"),
        ("video,label,label,start,end\na,x,y,1,2\n", "'label' is there twice"),
        ('"video' + "x" * 140000, "line 1: not valid CSV"),
        ('video,label,start,end\na,"x,1,2\nb,y,1,2\n', "line 2: not valid CSV"),
    ],
)
def test_csv_that_would_lose_something_is_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        IMPORTERS["csv"](tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("csv", "video,label,start,end\n"),
        ("elan", "<ANNOTATION_DOCUMENT/>"),
        ("label-studio", "[]"),
        ("activitynet", '{"database": {"a": {"annotations": []}}}'),
    ],
)
def test_a_file_without_annotations_is_no_import(tmp_path, capsys, source, text):
    (tmp_path / "empty").write_text(text)
    assert main(["import", str(tmp_path / "empty"), "--from", source, "--out", str(tmp_path / "out.json")]) == 2
    error = capsys.readouterr().err
    assert "nothing is annotated in it" in error and error.count("\n") == 1
    assert not (tmp_path / "out.json").exists()

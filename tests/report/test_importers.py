"""Imports of tables as people write them, and of files with nothing in them."""

import pytest

from feature_extraction.errors import UserError
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

"""Ids for people and back: whatever path, `plain_id` and `IdFinder` lead to the stored id; what is unclear stays so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_extraction.store.ids import IdFinder, plain_id
from feature_extraction.store.stream import encode_id

PARTS = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_characters="/\\\x7f"), min_size=1, max_size=8
)
PATHS = st.lists(PARTS.filter(lambda part: part.strip(" .") == part), min_size=1, max_size=3).map("/".join)


@given(PATHS)
def test_the_plain_form_is_the_path(path):
    assert plain_id(encode_id(path)) == path


@given(st.lists(PATHS, min_size=1, max_size=5, unique=True))
def test_either_form_of_every_id_is_found(paths):
    stored = {path: encode_id(path) for path in paths}
    finder = IdFinder(stored.values())
    for path, video_id in stored.items():
        assert finder.find(video_id) == video_id
        assert finder.find(path) == video_id


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("mon/a", ["mon%2Fa"]),
        ("mon/a.mp4", ["mon%2Fa"]),
        ("./mon/a.MP4", ["mon%2Fa"]),
        ("mon\\a.mp4", ["mon%2Fa"]),
        ("/data/videos/mon/a.mp4", ["mon%2Fa"]),
        ("a", ["mon%2Fa", "tue%2Fa"]),
        ("wed/a", []),
        ("b.avi", ["tue%2Fb"]),
        ("c", ["c.mp4", "c.avi"]),
        ("c.avi", ["c.avi"]),
        ("re\u0301sume\u0301", ["r\u00e9sum\u00e9"]),
        ("50%off", ["50%25off"]),
        ("", []),
    ],
)
def test_what_people_write(wanted, found):
    known = ["mon%2Fa", "tue%2Fa", "tue%2Fb", "c.mp4", "c.avi", "r\u00e9sum\u00e9", "50%25off"]
    assert IdFinder(known).candidates(wanted) == found


def test_control_characters_stay_encoded():
    stored = encode_id("a\x1b[31m\nb")
    assert plain_id(stored) == "a%1B[31m%0Ab" and IdFinder([stored]).find(plain_id(stored)) == stored

"""Video ids for people, and from whatever people write back to the id that is meant.

A video's id for people is its path below the folder without suffix (`fight/fi006`). A store's file is called after the
encoded form (`fight%2Ffi006`).
"""

import re
import unicodedata
from collections.abc import Iterable

from feature_extraction.store.stream import encode_id

_ESCAPED = re.compile(r"%([0-9A-F]{2})")
SUFFIX = re.compile(r"\.(mp4|mkv|avi|mov|webm|mpg|mpeg|m4v|wmv|flv|ts|mts|3gp|ogv|wav|flac|mp3|ogg)$", re.IGNORECASE)
"""Suffixes of video and audio files."""

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/|file://")


def plain_id(stored: str) -> str:
    """The form for people of an id as a store has it: `/` for `%2F`, and so on.

    Control characters, and bytes that are no UTF-8, stay encoded: an id must not speak to a terminal. Ids that were
    too long for a file's name stay cut.
    """
    return _ESCAPED.sub(lambda match: _shown(match.group(0), int(match.group(1), 16)), stored)


def _shown(escaped: str, code: int) -> str:
    return chr(code) if 0x20 <= code < 0x7F else escaped


class IdFinder:
    """Finds the ids that people mean among `known` ones.

    A video may be named by its id in either form, with or without the suffix of a video file, by an absolute path that
    ends in its id, and by the end of its path (its file name alone, say) where only one video ends so. Accented letters
    may be one sign or two. What is nearest to what was written comes first.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._exact: dict[str, str] = {}
        self._ends: dict[str, list[str]] = {}
        for one in known:
            self._exact[one] = one
        for one in list(self._exact):
            plain = plain_id(one)
            for form in (plain, _composed(plain)):
                self._exact.setdefault(form, one)
            for form in forms(plain):
                parts = form.split("/")
                # the whole of a form without its suffix is no id: a.mp4 and a.avi keep theirs side by side
                for start in range(len(parts)):
                    ends = self._ends.setdefault("/".join(parts[start:]), [])
                    if one not in ends:
                        ends.append(one)

    def candidates(self, wanted: str) -> list[str]:
        """The ids that `wanted` may mean: one where it is clear, none, or several."""
        tried = [*forms(wanted), *forms(plain_id(wanted)), *forms(plain_id(encode_id(wanted)))]
        for form in tried:
            if form in self._exact:
                return [self._exact[form]]
        for form in tried:
            if form in self._ends:
                return self._ends[form]
            if not _ABSOLUTE.match(form):
                continue
            parts = form.split("/")
            for start in range(1, len(parts)):
                rest = "/".join(parts[start:])
                if rest in self._exact:
                    return [self._exact[rest]]
        return []

    def find(self, wanted: str) -> str | None:
        """The one id that `wanted` means; None where there is none or several."""
        found = self.candidates(wanted)
        return found[0] if len(found) == 1 else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def forms(name: str) -> list[str]:
    """`name` as written and with one sign for each accented letter, each with and without a video file's suffix."""
    name = name.strip().replace("\\", "/").removeprefix("./")
    composed = _composed(name)
    return list(dict.fromkeys([name, composed, SUFFIX.sub("", name), SUFFIX.sub("", composed)]))

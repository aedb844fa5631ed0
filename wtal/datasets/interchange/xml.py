"""Text for XML files: escaped so that a parser gives back the very same string."""

import re
from xml.sax.saxutils import escape, quoteattr

from feature_extraction.errors import UserError

# What XML 1.0 has no way to write, not even as a character reference.
_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def text(value: str) -> str:
    """`value` as element content. A carriage return would else come back as a line feed."""
    return escape(_checked(value), {"\r": "&#13;"})


def attribute(value: str) -> str:
    """`value` as a quoted attribute; line breaks and tabs would else come back as blanks."""
    return quoteattr(_checked(value), {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})


def _checked(value: str) -> str:
    if found := _IMPOSSIBLE.search(value):
        raise UserError(
            f"{value[:80]!r} holds the character {found[0]!r}, which XML cannot hold; "
            "rename the label, or export to csv, vtt, via or fiftyone"
        )
    return value

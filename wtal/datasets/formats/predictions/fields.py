"""What a detection has, under the names that people give it, and the reading of one: the error names video, entry
and field.

Legend: nothing here is an array.
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.files import map_array, read_json
from wtal.datasets.annotations import Detection

FIELDS = {
    # field: its names (letter case and what is no letter or digit aside), the first that is there is taken
    "video": (
        "video", "videos", "videoid", "videoids", "videoname", "videonames", "vid", "videofile", "videopath",
        "filename", "file", "clip", "clipid", "youtubeid", "id", "name",
    ),
    "label": (
        "label", "labels", "labelname", "predlabel", "predictedlabel", "class", "classname", "predclass",
        "predictedclass", "eventlabel", "event", "action", "actionname", "activity", "activityname", "category",
        "categoryname", "type", "labelid", "classid", "labelindex", "classindex", "categoryid", "actionid", "cls",
    ),
    "start": (
        "start", "tstart", "starttime", "timestart", "startsec", "startseconds", "starttimes", "starts", "segmentstart",
        "begin", "begintime", "onset", "from", "tmin", "t0",
    ),
    "end": (
        "end", "tend", "endtime", "timeend", "endsec", "endseconds", "endtimes", "ends", "segmentend", "stop",
        "stoptime", "finish", "offset", "to", "tmax", "t1",
    ),
    "score": (
        "score", "scores", "confidence", "confidences", "confidencescore", "conf", "predscore", "detectionscore",
        "probability", "prob",
    ),
    "segment": ("segment", "segments", "interval", "timestamps", "timestamp"),
}  # fmt: skip

THUMOS14_CLASSES = {
    # the challenge's numbers of its detection classes
    7: "BaseballPitch", 9: "BasketballDunk", 12: "Billiards", 21: "CleanAndJerk", 22: "CliffDiving",
    23: "CricketBowling", 24: "CricketShot", 26: "Diving", 31: "FrisbeeCatch", 33: "GolfSwing", 36: "HammerThrow",
    40: "HighJump", 45: "JavelinThrow", 51: "LongJump", 68: "PoleVault", 79: "Shotput", 85: "SoccerPenalty",
    92: "TennisSwing", 93: "ThrowDiscus", 97: "VolleyballSpiking",
}  # fmt: skip


class BadField(Exception):
    """A field of one entry that cannot be read; the message says which and why."""


class Labels:
    """Class names by what a file says: a name, or an index into a class list.

    `digits`: whether text of digits is an index too, unless it is one of `known`; else only with a class list.
    """

    def __init__(
        self, known: Iterable[str] = (), by_index: Mapping[int, str] | None = None, digits: bool = False
    ) -> None:
        self.known = frozenset(known)
        self.by_index = by_index
        self.digits = digits or by_index is not None
        self._seen: dict[Any, str] = {}

    def __call__(self, value: Any) -> str:
        """The name that `value` means. Raises `BadField`."""
        try:
            return self._seen[value]
        except KeyError:
            name = self._seen[value] = self._name(value)
            return name
        except TypeError:  # a list or an object
            raise BadField(f"label is {value!r}; expected a class name") from None

    def _name(self, value: Any) -> str:
        named = value in self.known or not self.digits or not re.fullmatch(r"\s*\d+\s*", str(value))
        if isinstance(value, str) and named:
            if not value.strip():
                raise BadField("label is empty; expected a class name")
            return value
        if isinstance(value, bool) or not isinstance(value, (str, int, float)) or float(value) != int(float(value)):
            raise BadField(f"label is {value!r}; expected a class name")
        if self.by_index is None:
            raise BadField(f"label is {value!r}, the index of a class; name the class list with --classes FILE")
        if int(value) not in self.by_index:
            some = ", ".join(f"{index} {name}" for index, name in list(self.by_index.items())[:3])
            raise BadField(f"label is {value!r}, which the class list has not ({some}, ...)")
        return self.by_index[int(value)]


def fields_of(names: Iterable[str]) -> dict[str, str]:
    """Field -> which of `names` holds it, for the fields that are there."""
    return _fields_of(tuple(names))


@lru_cache(64)
def _fields_of(names: tuple[str, ...]) -> dict[str, str]:
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(re.sub(r"[^a-z0-9]", "", str(name).lower()), name)
    found = {field: next((plain[n] for n in known if n in plain), None) for field, known in FIELDS.items()}
    return {field: name for field, name in found.items() if name is not None}


def lacking(fields: Mapping[str, str], needed: Iterable[str]) -> str | None:
    """The first of `needed` that is not in `fields`; a segment stands for start and end."""
    have = set(fields) | ({"start", "end"} if "segment" in fields else set())
    return next((field for field in needed if field not in have), None)


def number(field: str, value: Any) -> float:
    """A finite number from a number or text. Raises `BadField`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadField(f"{field} is {_short(value)}, not a number") from None
    if not math.isfinite(result):
        raise BadField(f"{field} is {_short(value)}, infinite or not a number")
    return result


def detection(entry: Any, labels: Labels) -> Detection:
    """One detection from an object with the fields under any of their names, or from [start, end, label, score].

    Raises `BadField`.
    """
    if isinstance(entry, (list, tuple)) and len(entry) == 4:
        label, score = entry[2:] if isinstance(entry[2], str) else entry[:1:-1]
        entry = {"segment": entry[:2], "label": label, "score": score}
    if not isinstance(entry, dict):
        raise BadField(f"it is {_short(entry)}; expected an object with label, segment and score")
    fields = fields_of(entry)
    if missing := lacking(fields, ("label", "start", "end", "score")):
        raise BadField(f"it has no {missing} (its fields: {', '.join(map(str, entry)) or 'none'})")
    if "segment" in fields:
        start, end = span(entry[fields["segment"]])
    else:
        start, end = (number(field, entry[fields[field]]) for field in ("start", "end"))
    return Detection(start, end, labels(entry[fields["label"]]), number("score", entry[fields["score"]]))


def span(value: Any) -> tuple[float, float]:
    """Start and end from a pair, or from text such as "[1.5, 2]". Raises `BadField`."""
    pair = re.split(r"[\s,;]+", value.strip(" \t[]()")) if isinstance(value, str) else value
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise BadField(f"segment is {_short(value)}; expected [start, end]")
    return number("segment's start", pair[0]), number("segment's end", pair[1])


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked where it is gzip. Raises `UserError` naming the file."""
    try:
        content = Path(path).read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path}: cannot be read ({reason})") from None


def parse_json(path: Path, content: bytes) -> Any:
    """The value of JSON text. Raises `UserError` naming the file."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise UserError(f"{path}: not read, because its JSON is nested too deeply") from None
    except ValueError as error:  # also bad UTF-8, and numbers of thousands of digits
        raise UserError(f"{path}: not valid JSON ({' '.join(str(error).split())[:120]})") from None


def read_class_names(path: Path) -> dict[int, str]:
    """Index -> class name, from a class list: text with a name, or an index and a name, a line; JSON with a list of
    names, {name: index} or {index: name}; or an npy array of names. Lines without index count from 0.

    Raises `UserError` naming the file for anything else, and for an index or a name that comes twice.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            values = map_array(path).tolist()
            pairs = list(enumerate(v.decode() if isinstance(v, bytes) else str(v) for v in values))
        elif path.suffix == ".json":
            content = read_json(path)
            pairs = (
                list(enumerate(content)) if isinstance(content, list) else [_pair(*pair) for pair in content.items()]
            )
        else:
            lines = [line.strip() for line in read_bytes(path).decode("utf-8-sig").splitlines() if line.strip()]
            numbered = [re.fullmatch(r"(\d+)[\s,;:]+(\S.*)", line) for line in lines]
            pairs = [(int(m[1]), m[2]) for m in numbered] if all(numbered) else list(enumerate(lines))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: not a class list; expected a class name a line, or an index and a name") from None
    names = dict(pairs)
    if not names or len(names) < len(pairs) or len(set(names.values())) < len(names):
        raise UserError(f"{path}: {'an index or a class name comes twice' if names else 'no class names in it'}")
    return names


def _pair(key: str, value: Any) -> tuple[int, str]:
    return (value, key) if isinstance(value, int) else (int(key), str(value))


def _short(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else text[:57] + "..."

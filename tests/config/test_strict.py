"""The strict loader: what it refuses, in which words, and that what it writes it reads back."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from feature_extraction.errors import UserError
from wtal.config.strict import build, convert, dump, override, plain


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-4
    kind: Literal["a", "b"] = "a"
    limit: int | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()
    pair: tuple[int, int] = (1, 2)
    on: bool = False
    many: tuple[Inner, ...] = ()


def test_nested_values_and_defaults():
    made = build(Outer, {"inner": {"rate": "1e-3", "limit": 5}, "names": ["x"], "many": [{"kind": "b"}]})
    assert made == Outer(Inner(1e-3, "a", 5), ("x",), (1, 2), False, (Inner(kind="b"),))


@pytest.mark.parametrize(
    "values,message",
    [
        ({"iner": {}}, "unknown setting 'iner'; did you mean 'inner'?"),
        ({"inner": {"rat": 1}}, "unknown setting 'inner.rat'; did you mean 'inner.rate'?"),
        ({"inner": {"zzz": 1}}, "unknown setting 'inner.zzz'; allowed: kind, limit, rate"),
        ({"inner": {"rate": "fast"}}, "inner.rate: expected a number, got 'fast'"),
        ({"inner": {"limit": 2.5}}, "inner.limit: expected a whole number, got 2.5"),
        ({"inner": {"limit": True}}, "inner.limit: expected a whole number, got True"),
        ({"inner": {"kind": "c"}}, "inner.kind: 'c' is not one of 'a', 'b'"),
        ({"inner": 3}, "inner: expected a group of settings, got 3"),
        ({"names": "x"}, "names: expected a list, got 'x'"),
        ({"names": [1]}, "names[0]: expected text, got 1"),
        ({"pair": [1, 2, 3]}, "pair: expected 2 values, got 3"),
        ({"on": "yes please"}, "on: expected true or false, got 'yes please'"),
    ],
)
def test_every_mistake_is_named(values, message):
    with pytest.raises(UserError) as error:
        build(Outer, values)
    assert str(error.value) == message and "\n" not in message


def test_overrides_go_deep_and_leave_the_original():
    values = {"inner": {"rate": 1}}
    changed = override(values, ["inner.rate=2", "names=[a, b]", "inner.kind=b", "on=true"])
    assert changed == {"inner": {"rate": 2, "kind": "b"}, "names": ["a", "b"], "on": True}
    assert values == {"inner": {"rate": 1}}


@pytest.mark.parametrize(
    "assignment,message", [("rate", "expected key=value"), ("=3", "expected key=value"), ("a.b=[", "not valid YAML")]
)
def test_bad_overrides_are_named(assignment, message):
    with pytest.raises(UserError, match=message):
        override({}, [assignment])
    with pytest.raises(UserError, match="below a single value"):
        override({"a": 1}, ["a.b=2"])


def test_what_is_written_reads_back():
    import yaml

    made = Outer(Inner(1e-5, "b", None), ("é", "x"), (3, 4), True, (Inner(),))
    assert build(Outer, yaml.safe_load(dump(made))) == made == build(Outer, plain(made))


def test_union_takes_none_and_its_member():
    assert convert(int | None, None, "x") is None and convert(int | None, 3, "x") == 3
    with pytest.raises(UserError, match="x: expected a whole number"):
        convert(int | None, "3", "x")

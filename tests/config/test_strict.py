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


HOSTILE_YAML = {
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)),
    "itself": "a: &a [*a]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "deep mapping": "a: " + "{b: " * 300 + "1" + "}" * 300,
    "date": "seed: 2024-99-99\n",
    "good date": "out: 2024-01-01\nseed: 2024-01-01\n",
    "huge": "seed: 1" + "0" * 5000,
    "large": "seed: 1" + "0" * 30,
    "sixty": "seed: " + ":".join(["59"] * 4000),
    "tag": "seed: !!python/object/apply:os.system [true]\n",
    "set": "data: !!set {a, b}\n",
    "binary": "out: !!binary abc\n",
    "int tag": "seed: !!int abc\n",
    "float tag": "seed: !!float x\n",
    "bool tag": "seed: !!bool x\n",
    "list as a name": "? [a, b]\n: 1\n",
    "number as a name": "1: 2\n",
    "nothing as a name": "data: {~: 1}\n",
    "surrogate": 'out: "\\ud800"\n',
    "nul": "out: \x00\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "merge of nothing": "<<: 5\n",
    "too much": "out: " + "x" * (1 << 21),
    "latin": b"out: \xe9\n",
}


@pytest.mark.parametrize("text", HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml_is_one_line(tmp_path, text):
    from wtal.config.load import load_config

    (tmp_path / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_config(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_aliases_and_merges_that_stay_small_are_read(tmp_path):
    from wtal.config.load import load_config

    (tmp_path / "c.yaml").write_text("seed: &s 7\noptimizer: {batch: *s}\nschedule: {<<: {rounds: 2}, b_steps: 3}\n")
    config = load_config(str(tmp_path / "c.yaml"), ["out=2024-01-01"])
    assert (config.optimizer.batch, config.schedule.rounds, config.schedule.b_steps) == (7, 2, 3)
    assert config.out == "2024-01-01"

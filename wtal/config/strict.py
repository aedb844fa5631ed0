"""YAML and `a.b=value` overrides into frozen dataclasses, with every unknown key and wrong type refused by name."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from feature_extraction.errors import UserError, reason_of
from feature_extraction.files import read_bytes
from feature_extraction.seal import check_text
from wtal.config.yaml_text import parse_yaml

T = TypeVar("T")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises `UserError` for anything else."""
    try:
        text = read_bytes(path).decode()
        check_text(path, text)
        content = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML ({reason_of(error)})") from None
    if content is None:
        raise UserError(f"{path}: holds no settings")  # cut to nothing, it would pass for all defaults
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected settings as 'name: value' lines")
    return content


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Make the dataclass `cls` from nested mappings. Missing keys take the defaults.

    Raises `UserError` for an unknown key (naming the nearest one), a value of the wrong type (naming the allowed
    ones) and whatever the dataclass's own `__post_init__` refuses.
    """
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    for key in values:
        if key not in names:
            raise UserError(_unknown(key, names, where))
    converted = {key: convert(hints[key], value, _join(where, key)) for key, value in values.items()}
    try:
        return cls(**converted)
    except TypeError as error:
        raise UserError(f"{where or cls.__name__}: {error}") from None


def convert(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against the type `hint` (dataclass, Literal, union, tuple, dict, scalar) and convert it."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected a group of settings, got {value!r}")
        return build(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        problems = []
        for option in (a for a in arguments if a is not type(None)):
            try:
                return convert(option, value, where)
            except UserError as error:
                problems.append(str(error))
        raise UserError(problems[0])
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{where}: expected a list, got {value!r}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(arguments) != len(value):
            raise UserError(f"{where}: expected {len(arguments)} values, got {len(value)}")
        pairs = zip(arguments, value, strict=True)
        return tuple(convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(pairs))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected a mapping, got {value!r}")
        key_hint, hint = arguments
        return {convert(key_hint, k, where): convert(hint, v, _join(where, str(k))) for k, v in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML reads 1e-4 (no dot) as text
        try:
            return float(value)
        except ValueError:
            raise UserError(f"{where}: expected a number, got {value!r}") from None
    if hint is int and isinstance(value, bool):
        raise UserError(f"{where}: expected a whole number, got {value!r}")
    if isinstance(value, hint):
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))
    raise UserError(f"{where}: expected {wanted}, got {value!r}")


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=value` assignments (value read as YAML) to nested mappings; returns a new mapping."""
    result = {key: value for key, value in values.items()}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise UserError(f"{assignment!r}: expected key=value, for example optimizer.lr=1e-4")
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise UserError(f"{assignment[:100]!r}: the value is not valid YAML ({error})") from None
        result = _set(result, path.split("."), value, path)
    return result


def assignments(given: Sequence[str] | Mapping[str, Any], more: Mapping[str, Any]) -> list[str]:
    """Settings in any form as `a.b=value` assignments: texts, or mappings with nested or dotted keys; `more` last."""
    if isinstance(given, str):
        raise UserError(f"{given!r}: give settings as a list of texts, or as a mapping")
    first = list(_flat(given, "")) if isinstance(given, Mapping) else list(given)
    return [*first, *_flat(more, "")]


def _flat(values: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, _join(where, key))
        else:
            text = yaml.safe_dump(plain(value), default_flow_style=True, width=math.inf).removesuffix("...\n")
            yield f"{_join(where, key)}={text.strip()}"


def _set(values: Mapping[str, Any], keys: list[str], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: {keys[0]!r} is below a single value, not a group of settings")
    result = dict(values)
    result[keys[0]] = value if len(keys) == 1 else _set(result.get(keys[0]) or {}, keys[1:], value, path)
    return result


def dump(value: Any) -> str:
    """A dataclass as YAML that `build` reads back to an equal value."""
    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as the mappings, lists and texts that JSON and YAML know."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _unknown(key: Any, names: set[str], where: str) -> str:
    near = difflib.get_close_matches(str(key), names, n=1)
    hint = f"did you mean {_join(where, near[0])!r}?" if near else f"allowed: {', '.join(sorted(names))}"
    return f"unknown setting {_join(where, str(key))!r}; {hint}"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def at_least(where: str, settings: Any, least: int, *names: str) -> None:
    """Raise `UserError` unless each named field of `settings` is None or a finite number of at least `least`."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise UserError(f"{where}.{name} must be a number of at least {least}, got {value}")

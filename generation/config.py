"""Settings: frozen dataclasses, read from YAML with ``key=value`` overrides, checked at the edge.

A configuration class stands beside what it configures::

    @config
    class LoopConfig:
        lr: float = 1e-4
        '''Peak learning rate.'''

    cfg = load_config(RunConfig, Path("configs/geosynth_nano.yaml"), ["loop.lr=3e-4"])

Values are taken as written: a number in quotes, ``yes`` for a number or ``1.5`` for a count is a
mistake and not a conversion. All mistakes of a file are reported in one error; one that refers to
itself, or holds numbers or brackets without end, is refused before its values are looked at.
"""

import dataclasses
import difflib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast, dataclass_transform, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from generation.errors import ConfigError, MissingFileError

T = TypeVar("T")
MAX_DEPTH = 20
"""Sections within sections."""
MAX_VALUES = 10_000
"""Keys and values of a whole configuration, counted as often as they are referred to."""
MAX_WHOLE = 2**63 - 1
"""The largest whole number: what fits 64 bits."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def config(cls: type[T]) -> type[T]:
    """Make a frozen, keyword-only dataclass of which no unknown key and no NaN is accepted.

    Without ``extra="forbid"`` pydantic ignores unknown keys of a dataclass: a typo would train
    with the default.
    """
    rules = ConfigDict(extra="forbid", allow_inf_nan=False)
    cls.__pydantic_config__ = rules  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def load_config(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a configuration; JSON, such as a checkpoint's ``config.json``, is YAML too.

    Args:
        cls: A class made by ``@config``.
        path: The file; an empty one means all defaults.
        overrides: ``key=value`` with dots for sections, applied in order; values are YAML.

    Raises:
        MissingFileError: The file is not there.
        ConfigError: All mistakes of the file and of the overrides, together.
    """
    tree, mistakes = _read_tree(path, overrides)
    return _validate(cls, tree, str(path), mistakes)


def load_variant(
    variants: Mapping[str, type[T]], key: str, path: Path, overrides: Sequence[str] = ()
) -> T:
    """Read a configuration whose class depends on one of its own values.

    Args:
        variants: Value of ``key`` -> class made by ``@config``; the first is meant where the file
            does not give the key.
        key: A name on the first level, which each class has as a field.
        path: The file.
        overrides: As for :func:`load_config`.

    Raises:
        MissingFileError: The file is not there.
        ConfigError: The value names no variant; or all mistakes of the file and the overrides.
    """
    tree, mistakes = _read_tree(path, overrides)
    chosen = tree.get(key, next(iter(variants)))
    if not isinstance(chosen, str) or chosen not in variants:
        raise ConfigError(
            f"{path}: {key}: {_short(chosen)} was given (one of {', '.join(variants)})"
        )
    return _validate(variants[chosen], tree, str(path), mistakes)


def to_yaml(cfg: object) -> str:
    """Write a configuration so that ``load_config`` gives an equal one; fields keep their order."""
    if not is_dataclass(cfg) or isinstance(cfg, type):
        raise ConfigError(f"{cfg!r} is no configuration (give an instance of a @config class)")
    plain = _plain(dataclasses.asdict(cfg))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number, ``no`` a word, and a key a word that may be given once."""

    mistakes: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem=f"a {key.id} is used as a key, where a word is needed",
                    problem_mark=key.start_mark,
                )
            if key.value in seen:
                where, line = _word(key.value), key.start_mark.line + 1
                self.mistakes.append(f"{where}: given twice (again in line {line}; keep one)")
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"  # also 1, NO and 2024-01-01, which need no quotes
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401
        """Make a value; text of which none can be made is a mistake of the file."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(
                problem=f"{_short(node.value)} cannot be read as {kind}",
                problem_mark=node.start_mark,
            ) from error


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in kinds if tag != _BOOL]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("^(?:true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _read_tree(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    mistakes: list[str] = []
    tree = _read_yaml(path, mistakes)
    for override in overrides:
        _apply_override(tree, override, mistakes)
    strange = _strange(tree, str(path))
    if strange:
        raise _refusal(str(path), [*mistakes, *strange])
    return tree, mistakes


def _parse(text: str, mistakes: list[str]) -> object:
    loader = _Loader(text)
    loader.mistakes = mistakes
    try:
        return loader.get_single_data()
    except RecursionError as error:
        raise yaml.YAMLError(f"more than {MAX_DEPTH} brackets within each other") from error
    finally:
        loader.dispose()


def _read_yaml(path: Path, mistakes: list[str]) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise MissingFileError(f"no configuration at {path} (give the path of a YAML file)")
        tree = _parse(path.read_text(encoding="utf-8"), mistakes)
    except MissingFileError:
        raise
    except OSError as error:
        raise MissingFileError(
            f"{path} cannot be read: {error.strerror} (check its name and its permissions)"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {reason} (mend the line that is named)") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} holds a {type(tree).__name__} (a configuration is a list of 'key: value')"
        )
    return tree


def _strange(tree: dict[str, Any], source: str) -> list[str]:
    """Find keys and values that can belong to no setting.

    Raises:
        ConfigError: The tree never ends, or is far too large.
    """
    found: list[str] = []
    waiting: list[tuple[tuple[str, ...], object]] = [((), tree)]
    for count in itertools.count(1):
        if not waiting:
            break
        where, value = waiting.pop()
        if len(where) > MAX_DEPTH or count > MAX_VALUES:
            raise ConfigError(
                f"{source}: {where[0]} leads to more than {MAX_DEPTH} levels or {MAX_VALUES} "
                "values (shorten it, or take out the anchor that refers to itself)"
            )
        if isinstance(value, dict):
            waiting += [((*where, _word(key)), each) for key, each in value.items()]
            waiting += [((*where, _word(key)), key) for key in value]
        elif isinstance(value, (list, tuple)):
            waiting += [((*where, str(index)), each) for index, each in enumerate(value)]
        elif wrong := _wrong_leaf(value):
            found.append(f"{'.'.join(where)}: {wrong}")
    return found


def _wrong_leaf(value: object) -> str | None:
    if isinstance(value, int) and not -MAX_WHOLE <= value <= MAX_WHOLE:
        return f"{_short(value)} was given (a whole number lies between -2^63 and 2^63)"
    if isinstance(value, bytes | set):
        return f"{_short(value)} was given (write text, a number or a list in brackets)"
    if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        return f"{_short(value)} was given (it holds a character that is no text; take it out)"
    return None


def _short(value: object) -> str:
    """Quote a value, on one line and not too long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number without end"
    return text if len(text) <= 60 else f"{text[:40]}…({len(text)} characters)"


def _word(key: object) -> str:
    """Give a key as it is written; in quotes where that would not be one short line."""
    return key if isinstance(key, str) and len(key) < 60 and key.isprintable() else _short(key)


def _refusal(source: str, mistakes: Sequence[str]) -> ConfigError:
    head = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return ConfigError(f"{source}: {head}\n" + "\n".join(f"  {line}" for line in mistakes))


def _apply_override(tree: dict[str, Any], override: str, mistakes: list[str]) -> None:
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        mistakes.append(
            f"override {_short(override)}: not key=value (write for example loop.lr=1e-4)"
        )
        return
    try:
        value = _parse(text, mistakes)
    except yaml.YAMLError:
        mistakes.append(
            f"override {_short(override)}: {_short(text)} is not YAML (quote the value)"
        )
        return
    section = tree
    for depth, name in enumerate(names[:-1], start=1):
        inner = section.setdefault(name, {})
        if not isinstance(inner, dict):
            where = ".".join(names[:depth])
            mistakes.append(f"override {_short(override)}: {where} is a value and not a section")
            return
        section = inner
    section[names[-1]] = value


def _validate(cls: type[T], tree: Mapping[str, Any], source: str, mistakes: list[str]) -> T:
    cfg: T | None = None
    try:
        # JSON mode: a list may become a tuple and a string a path, but nothing else is converted.
        text = json.dumps(tree, default=str)
        cfg = TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        mistakes.extend(_sentence(cls, dict(detail)) for detail in error.errors())
    if mistakes or cfg is None:
        raise _refusal(source, mistakes)
    return cfg


def _sentence(cls: type, detail: Mapping[str, Any]) -> str:
    where = detail["loc"]
    name = ".".join(_word(part) for part in where) or "(whole file)"
    if detail["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        known = _known_keys(cls, where[:-1])
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{name}: unknown key ({hint}known here: {', '.join(known)})"
    if detail["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return f"{name}: not given, and it has no default (add it to the file)"
    if detail["type"] == "value_error":
        return f"{name}: {detail['ctx']['error']}"
    return f"{name}: {_short(detail['input'])} was given ({detail['msg']})"


def _known_keys(cls: type, sections: Sequence[str | int]) -> list[str]:
    """Return the field names of the dataclass that lies at a path of section names."""
    for name in sections:
        annotation = get_type_hints(cls).get(str(name), object)
        inner = [kind for kind in (annotation, *get_args(annotation)) if is_dataclass(kind)]
        if not inner:
            return []
        cls = cast(type, inner[0])
    return [entry.name for entry in dataclasses.fields(cls)] if is_dataclass(cls) else []


def _plain(value: object) -> object:
    """Turn tuples into lists and paths into text, which is all that YAML has no word for."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, PurePath) else value

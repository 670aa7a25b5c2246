"""YAML as people write it here, read strictly: YAML 1.2's plain rules for booleans, decimal integers and null.

An unquoted 0x… stays text (YAML 1.1 makes it a number, and would drop an address's leading zeros); so do dates, and
numbers with a point, which must not pass through a float. Aliases, duplicate keys and deep nesting are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from enclave_app.protocol.errors import Refused

MAX_YAML = 1 << 20
MAX_DEPTH = 24
MAX_NODES = 25_000
"""Scalars, lists and mappings: each takes about a kilobyte while it is read, so a file of two-byte items grows 500-fold."""
_BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,77})")
_NULLS = ("", "~", "null")


class YamlModel(BaseModel):
    """A part of a YAML file: camelCase keys, no unknown keys, never changed after reading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )


M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; Refused `file.read` or `yaml.*`."""
    try:
        with path.open("rb") as source:
            data = source.read(MAX_YAML + 1)
    except OSError as error:
        raise Refused("file.read", f"cannot read {path}", found=error.strerror) from error
    return parse_yaml(data)


def parse_yaml(data: bytes) -> Any:
    if len(data) > MAX_YAML:
        raise Refused("yaml.size", "a YAML file is too large", expected=f"at most {MAX_YAML} bytes")
    try:
        node = yaml.compose(data.decode("utf-8"), Loader=_NoAliases)
        return None if node is None else _value(node, "")
    except UnicodeDecodeError:
        raise Refused("yaml.syntax", "a YAML file is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise Refused("yaml.syntax", f"not YAML{where}", found=error.problem) from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise Refused("yaml.syntax", f"not YAML ({type(error).__name__})") from None


def validate_yaml(model: type[M], value: Any, hints: Mapping[str, str] | None = None) -> M:
    """Check a value against a model; the error names each wrong place by its YAML path, and never quotes a value.

    `hints` say what to write where something is missing, by dotted path without list positions.
    """
    if not isinstance(value, dict):
        raise Refused("yaml.invalid", "the file holds no `key: value` lines")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[:8]
    except RecursionError:
        raise Refused("yaml.depth", "a YAML file is nested too deeply") from None
    lines = "; ".join(
        f"{yaml_path(item['loc'])}: {_say(item['type'], item['msg'], item['loc'], hints)}" for item in found
    )
    raise Refused("yaml.invalid", lines)


def yaml_path(parts: tuple[int | str, ...]) -> str:
    """`data[0].columns`, as a person would look it up."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the file"


class _NoAliases(yaml.SafeLoader):
    _depth = 0
    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias (*name)", event.start_mark)
        self._depth += 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Refused("yaml.size", "a YAML file holds too many values", expected=f"at most {MAX_NODES}")
        if self._depth > MAX_DEPTH:
            raise Refused("yaml.depth", "a YAML file is nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _value(node: yaml.Node, path: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, item in node.value:
            key = _text(str(key_node.value)) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key in result:
                raise Refused(
                    "yaml.key", f"{path.removeprefix('.') or 'the file'} has a key twice, or one that is no text"
                )
            result[key] = _value(item, f"{path}.{key}")
        return result
    return _scalar(str(node.value), isinstance(node, yaml.ScalarNode) and node.style is None)


def _scalar(text: str, plain: bool) -> Any:
    if plain and text in _BOOLEANS:
        return _BOOLEANS[text]
    if plain and _INTEGER.fullmatch(text):
        return int(text)
    return None if plain and text in _NULLS else _text(text)


def _text(text: str) -> str:
    # An escape can write both; neither stands in a file name, in JSON or in what is signed.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise Refused("yaml.text", "a YAML file holds a NUL, or half of a surrogate pair")
    return text


def _say(kind: str, message: str, where: tuple[int | str, ...], hints: Mapping[str, str] | None) -> str:
    if kind != "missing":
        return message.removeprefix("Value error, ")
    hint = (hints or {}).get(".".join(part for part in where if isinstance(part, str)))
    return f"is not set; write {hint}" if hint else "is not set, and has no default"

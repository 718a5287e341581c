"""What an arm of an A/B comparison is: a deploy with some settings of `deploy.toml` and options of its own.

Pure. Does not know which settings exist; `parse_config` refuses those that do not, with their place. Invariant: two
arms that are written differently but mean the same are still compared, since their names are all that tells them apart.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple

LEVELS: Mapping[str, str] = MappingProxyType(
    {name: f"verify.level={name}" for name in ("md5", "app-report", "journal")}
)
"""Arms that have a name: the levels of verification."""

USAGE = (
    "name a level (md5, app-report, journal), or write a setting in one word (--candidate=device.baud=921600): "
    "doit keeps words of the form KEY=VALUE for itself"
)


class Arm(NamedTuple):
    """`settings`: (path in deploy.toml, value); `options`: words for `doit deploy`."""

    name: str
    settings: tuple[tuple[tuple[str, ...], Any], ...] = ()
    options: tuple[str, ...] = ()


def parse_arm(text: str) -> Arm | str:
    """The arm that `text` names, or what is wrong with it. Parts are separated by commas."""
    settings, options = [], []
    for part in text.split(","):
        word = LEVELS.get(part, part)
        if word.startswith("--") and len(word) > 2:
            options.append(word)
            continue
        key, equals, value = word.partition("=")
        path = tuple(key.split("."))
        if not equals or not value or len(path) < 2 or not all(path):
            return f"{part!r} is no setting of a deploy"
        settings.append((path, _value(value)))
    return Arm(text, tuple(settings), tuple(options))


def _value(text: str) -> Any:
    """As TOML would read it, else the text itself: nobody wants to quote for the shell and for TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def apply(arm: Arm, document: Mapping[str, Any], device: str) -> dict[str, Any]:
    """`deploy.toml` with the arm's settings. `device.KEY` means the device that is measured."""
    changed = _copied(document)
    for path, value in arm.settings:
        named = path[0] == "device" and len(path) == 2
        *tables, key = ("device", device, path[1]) if named else path
        table = changed
        for name in tables:
            inner = table.setdefault(name, {})
            table = inner if isinstance(inner, dict) else table
        table[key] = value
    return changed


def _copied(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in table.items()}

"""`.mcp.json`, from which agents learn how to start this project's tools: our entry in, and out again.

The file is strict JSON, without the comments that mark our text elsewhere: our entry is known by being, character for
character, what was put in. Pure. Invariants: `without(with_entry(text)) == text` for every text that is not refused; an
entry of our name that is somebody else's is not touched.
"""

from __future__ import annotations

import json

from pipeline.formats import jsonc
from pipeline.formats.jsonc import CannotEdit

FILE = ".mcp.json"
SERVERS = "mcpServers"
NAME = "hotplate"
EMPTY = f'{{\n  "{SERVERS}": {{\n  }}\n}}\n'


def entry(doit: str) -> str:
    """The member, as it stands in the file."""
    value = json.dumps({"command": doit, "args": ["mcp"]})
    return f'    "{NAME}": {value}'


def with_entry(text: str, doit: str) -> str:
    """With our entry. Raises CannotEdit for what is no JSON object, or has another entry of our name."""
    known = _servers(text)
    ours = {"command": doit, "args": ["mcp"]}
    if known is not None and NAME in known:
        if known[NAME] == ours:
            return text
        raise CannotEdit(f"{SERVERS}.{NAME} is another server's entry")
    if known is None:
        found = jsonc.opening(text, ())
        if found is None:
            raise CannotEdit("it holds no object")
        place = found[1]
        rest = "," if _holds_more(text, place) else ""
        return f"{text[:place]}{_servers_with(doit)}{rest}{text[place:]}"
    found = jsonc.opening(text, (SERVERS,))
    assert found is not None
    place = found[1]
    return f"{text[:place]}\n{entry(doit)}{',' if known else ''}{text[place:]}"


def without(text: str, doit: str) -> str:
    """Without it; the text itself where it is not there as it was put in."""
    servers, member = _servers_with(doit), f"\n{entry(doit)}"
    for whole in (f"{servers},", servers, f"{member},", member):
        if text.count(whole) == 1:
            rest = text.replace(whole, "")
            if _is_json(rest):
                return rest
    return text


def _servers_with(doit: str) -> str:
    """All servers, where there were none: in one line, so that it differs from an entry among others."""
    return f'\n  "{SERVERS}": {{{entry(doit).strip()}}}'


def _servers(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotEdit(f"it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise CannotEdit("it holds no object")
    servers = value.get(SERVERS)
    if servers is not None and not isinstance(servers, dict):
        raise CannotEdit(f"{SERVERS} is no object")
    return servers


def _holds_more(text: str, place: int) -> bool:
    return not text[place:].lstrip().startswith("}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

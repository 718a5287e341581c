"""XML that a program of somebody else rewrites at will: our elements go into one component of it and come out again.

Texts only. Does not know what the elements mean. Invariants: nothing but our own block changes;
`removed(inserted(text)) == text` for every text without a block. A program that loads and saves the file drops
comments, and with them the marks of our block: then our elements are known by their name, and no others go. A text that
is not well-formed, or has a document type, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from xml.parsers.expat import ExpatError, ParserCreate

from cache.named_tuple import NamedTuple
from pipeline.formats.jsonc import CannotEdit
from pipeline.formats.marked_block import newline_of

BEGIN = "<!-- >>> hotplate (written by `doit hooks:install`, taken out by `doit hooks:uninstall`) >>> -->"
CLOSED = "<!-- >>> hotplate (closed; written by `doit hooks:install`, taken out by `doit hooks:uninstall`) >>> -->"
"""The element around the block was an empty-element tag."""
END = "<!-- <<< hotplate <<< -->"

_TOKEN = re.compile(
    r"<!--.*?-->|<\?.*?\?>|<!\[CDATA\[.*?\]\]>|"
    r"<(?P<close>/?)(?P<name>[^\s<>/!?=\"']+)(?P<attributes>(?:[^<>\"']|\"[^\"]*\"|'[^']*')*?)(?P<empty>/?)>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([^\s=]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_BLOCK = re.compile(
    rf"(?:\r?\n)?[ \t]*(?:{re.escape(BEGIN)}|(?P<closed>{re.escape(CLOSED)})).*?(?P<end>{re.escape(END)}|\Z)", re.DOTALL
)


class XmlElement(NamedTuple):
    """Places in the text: of the tag, of the content (`inner`; equal to `end` in an empty-element tag), of the
    end. `parent`: its place in the list, -1 at the top. Values of attributes are as written, entities and all."""

    name: str
    attributes: dict[str, str]
    parent: int
    start: int
    inner: int
    end: int

    @property
    def closed(self) -> bool:
        """Is it an empty-element tag?"""
        return self.inner == self.end


def elements(text: str) -> list[XmlElement]:
    """All of them, in the order of their tags. Raises CannotEdit."""
    _check(text)
    found: list[XmlElement] = []
    open_ones: list[int] = []
    for token in _TOKEN.finditer(text):
        if token["name"] is None:
            continue
        if token["close"]:
            place = open_ones.pop()
            found[place] = found[place]._replace(end=token.end())
            continue
        attributes = {match[1]: match[2] or match[3] or "" for match in _ATTRIBUTE.finditer(token["attributes"])}
        parent = open_ones[-1] if open_ones else -1
        found.append(XmlElement(token["name"], attributes, parent, token.start(), *(token.end(),) * 2))
        if not token["empty"]:
            open_ones.append(len(found) - 1)
    return found


def _check(text: str) -> None:
    def refuse(*_: object) -> None:
        raise CannotEdit("it has a document type")

    parser = ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except ExpatError as error:
        raise CannotEdit(f"line {error.lineno} is not well-formed XML") from None


def inserted(text: str, component: str, body: Sequence[str]) -> str:
    """`text` with the lines `body` as the first content of the element `component` with that name, which is made where
    there is none. Raises CannotEdit."""
    known = elements(text)
    if known[0].name != "project":
        raise CannotEdit(f"it holds a {known[0].name} and no project")
    for element in known:
        if element.parent == 0 and element.name == "component" and element.attributes.get("name") == component:
            return _put(text, element, body)
    return _put(text, known[0], [f'<component name="{component}">', *(f"  {line}" for line in body), "</component>"])


def _put(text: str, element: XmlElement, body: Sequence[str]) -> str:
    end = newline_of(text)
    line = text[text.rfind("\n", 0, element.start) + 1 : element.start]
    own = line if not line.strip(" \t") else ""
    lines = [CLOSED if element.closed else BEGIN, *body, END]
    block = "".join(f"{end}{own}  {one}" for one in lines)
    if not element.closed:
        return text[: element.inner] + block + text[element.inner :]
    return f"{text[: element.end - 2]}>{block}{end}{own}</{element.name}>{text[element.end :]}"


def removed(text: str, ours: Callable[[Sequence[XmlElement], int], bool]) -> str:
    """`text` without our blocks, and without the elements that are `ours` where a program dropped the marks. Raises
    CannotEdit."""
    while (found := _BLOCK.search(text)) is not None:
        if not found["end"]:
            raise CannotEdit(
                f"line {text.count(chr(10), 0, found.start()) + 1}: the end of the block is missing: {END}"
            )
        before, after = text[: found.start()], text[found.end() :]
        closing = re.match(r"\s*</[^>]*>", after)
        if found["closed"] is not None and closing is not None and before.endswith(">"):
            before, after = f"{before[:-1]}/>", after[closing.end() :]
        text = before + after
    while (cut := _unmarked(text, ours)) is not None:
        text = text[: cut[0]] + text[cut[1] :]
    return text


def _unmarked(text: str, ours: Callable[[Sequence[XmlElement], int], bool]) -> tuple[int, int] | None:
    """Where the next of our elements stands; its component goes along when it says nothing else."""
    if "hotplate" not in text:
        return None
    known = elements(text)
    place = next((place for place in range(len(known)) if ours(known, place)), None)
    if place is None:
        return None
    parent = known[known[place].parent]
    alone = [one for one in known if one.parent == known[place].parent] == [known[place]]
    goes = parent if alone and parent.parent == 0 and set(parent.attributes) == {"name"} else known[place]
    return len(text[: goes.start].rstrip()), goes.end


def children(known: Sequence[XmlElement], place: int) -> Iterator[XmlElement]:
    """Of the element at that place of the list."""
    return (element for element in known if element.parent == place)

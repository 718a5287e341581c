"""What the pages say and the code does: generated tables, and names that must exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pipeline.failures import failure_map_markdown
from tests.unit.test_layers import ROOMS, sources

ROOT = Path(__file__).parents[2]
FAILURE_MAP_HEAD = """# Failure map

What can go wrong, whose it is, and what to do next. This page is generated from the table in
`pipeline/failures.py` that the code itself uses; `python -m tests.unit.test_docs` writes it again. A real cause for
each category is in `tests/e2e/test_every_failure.py`; `unknown` is counted in every report (`totals.unknown_failures`).

"""


def failure_map_page() -> str:
    return FAILURE_MAP_HEAD + failure_map_markdown().strip() + "\n"


def test_the_failure_map_is_that_of_the_code() -> None:
    assert (ROOT / "docs/failure-map.md").read_text() == failure_map_page()


def test_links_lead_somewhere() -> None:
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        ROOT / "firmware/README.md",
    ]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def is_there(name: str) -> bool:
    return any((ROOT / place / name).exists() for place in ("", "pipeline"))


def test_the_map_names_what_is_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`([\w-]+(?:/[\w-]+)*(?:/|\.py|\.toml))`", page)
    assert len(named) > 80
    of_users = {"build/", "reports/"}
    assert [name for name in named if name not in of_users and not is_there(name)] == []
    assert {f"{name}/" for name in ROOMS} <= set(named), "every folder is on the map"


def test_each_file_says_first_what_it_is_for() -> None:
    """So that `head -qn1 FOLDER/*.py` is the index of a folder."""
    bare = [path for path in sources() if not re.match(r'"""[^"\s]', (ROOT / path).read_text())]
    assert bare == []


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    rows = (ROOT / "docs/glossary.md").read_text().splitlines()[4:]
    words = [row.split("|")[1].strip() for row in rows]
    order = [re.sub(r"[^a-z ]", "", word.lower().replace("doit ", "")) for word in words]
    assert order == sorted(set(order))
    assert all(row.count("|") == 3 for row in rows)


OF_OTHERS = {"esptool.py", "dodo.py", "plain/dodo.py", "targets/esp32c3.py", "conftest.py", "cache.py"}


def test_docstrings_name_modules_that_are_there() -> None:
    """`view.py` is one beside, `report/document.py` one by its folder."""
    paths = [
        path for package in ("cache", "pipeline", "virtualboard", "tests") for path in (ROOT / package).rglob("*.py")
    ]
    known = {path.relative_to(ROOT).as_posix() for path in paths}
    lost = []
    for path in paths:
        for name in re.findall(r"`([\w/]+\.py)`", path.read_text()):
            if name not in OF_OTHERS and not any(one == name or one.endswith(f"/{name}") for one in known):
                lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert lost == []


def test_the_first_screen_has_exactly_two_commands() -> None:
    first = re.search(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert first is not None
    assert first[1].splitlines() == ["uv run doit deploy", "uv run pytest"]
    assert "uv run pytest" in (ROOT / ".ci/run").read_text(), "CI runs README's test command"


def test_the_packages_that_are_shipped_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "__init__.py").exists()


if __name__ == "__main__":
    (ROOT / "docs/failure-map.md").write_text(failure_map_page())

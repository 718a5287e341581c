"""What the pages say and the code does: generated tables, and names that must exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pipeline.failures import failure_map_markdown

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

"""Lines of `Requires-Dist`, against what `packaging` says of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from pipeline.formats.requirements import Requirement, parse_requirement


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("doit<0.38,>=0.37", Requirement("doit", "<0.38,>=0.37")),
        ("ziglang==0.17.0; extra == 'zig'", Requirement("ziglang", "==0.17.0", "zig")),
        ('fatfs-ng>=0.1.16 ; extra == "fs"', Requirement("fatfs-ng", ">=0.1.16", "fs")),
        ("tabulate", Requirement("tabulate")),
        ("uvicorn[standard] (>=0.54)", Requirement("uvicorn", ">=0.54")),
        ("colorama; sys_platform == 'win32'", Requirement("colorama")),
        ("", None),
    ],
)
def test_lines(line: str, expected: Requirement | None) -> None:
    assert parse_requirement(line) == expected


VERSIONS = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
SPECIFIERS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([">=", "<=", "<", ">", "==", "!="]), VERSIONS).map("".join),
        st.tuples(st.just("~="), VERSIONS.filter(lambda version: "." in version)).map("".join),
        st.tuples(st.sampled_from(["==", "!="]), VERSIONS.map(lambda version: f"{version}.*")).map("".join),
    ),
    max_size=3,
).map(",".join)


@given(SPECIFIERS, VERSIONS)
def test_versions_are_judged_as_packaging_judges_them(specifiers: str, version: str) -> None:
    assert Requirement("x", specifiers).accepts(version) == SpecifierSet(specifiers).contains(version)


@given(st.text(), st.text())
def test_what_cannot_be_understood_forbids_nothing(line: str, version: str) -> None:
    parse_requirement(line)
    assert Requirement("x", "nonsense").accepts(version)
    assert Requirement("x", ">=5").accepts("")

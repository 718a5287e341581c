"""What deploy.toml says of the project, as a string of C."""

from __future__ import annotations

import pytest

from pipeline.toolchain.generate import c_string


@pytest.mark.parametrize(
    ("text", "written"),
    [("plain", '"plain"'), ('a"b\\c', '"a\\"b\\\\c"'), ("é", '"\\u00e9"'), ("💡", '"\\U0001f4a1"')],
)
def test_a_text_is_written_so_that_a_compiler_reads_it_back(text: str, written: str) -> None:
    assert c_string(text) == written

"""What the pages of measurements have in common: a table for the terminal, and who, where and from what.

Pure. Knows the dicts that `effects/host.py` makes of a machine; not what was measured.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

NOTHING = "-"
"""What was not measured."""


def text_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Container[str] = (),
    widths: Sequence[int | None] | None = None,
) -> str:
    """For a terminal. `right`: the columns whose cells end below each other; `widths`: where cells are wrapped."""
    from tabulate import tabulate

    align = ["right" if name in right else "left" for name in head]
    return str(tabulate(rows, headers=head, disable_numparse=True, colalign=align, maxcolwidths=widths))


def machine_fact(machine: Mapping[str, str]) -> str:
    return f"- machine: `{machine['id']}` ({machine['system']}, {machine['cpu']}, {machine['cores']} cores)"


def device_fact(device: str, port: str, profile: str) -> str:
    return f"- device: `{device}` on `{port}`, profile `{profile}`"


def git_fact(sha: str, dirty: bool) -> str:
    return f"- git: `{sha or NOTHING}`{' with uncommitted changes' if dirty else ''}"

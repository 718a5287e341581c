"""Python and the packages that this installation of Hotplate needs, against what its metadata asks for.

Reads metadata and imports none of the packages. Invariant: an extra is an error only where the project needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from pipeline.doctor.findings import DoctorFinding, bad, note, ok, warning
from pipeline.effects.versions import distribution_requires, distribution_version
from pipeline.formats.requirements import Requirement, parse_requirement

DISTRIBUTION = "hotplate"
OLDEST_PYTHON = (3, 11)

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "zig": "compile with [toolchain] kind = 'zig'",
        "board": "execute firmware on the virtual ESP32-C3",
        "fs": "pack file systems ([image.NAME] from = ...)",
        "watch": "see saved files at once (`doit watch`)",
        "serve": "show the service's page (`doit serve --open`)",
        "mcp": "be the tools of an AI agent (`doit mcp`)",
        "discover": "write found boards into deploy.toml (`doit devices:discover`)",
        "reapi": "share results over grpc:// ([cache] remote)",
        "farm": "use the boards of a labgrid farm (port = 'labgrid://...')",
        "bench": "measure against ninja (`doit bench:engine`)",
    }
)
"""What each is for, to say what is missing without it."""


def examine_packages(needed: Sequence[str]) -> Iterator[DoctorFinding]:
    """`needed`: the extras that the project cannot do without."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield ok("python", f"{version} at {sys.executable}")
    else:
        yield bad("python", f"{version}, but 3.11 is the oldest that works", "install a newer Python")
    lines = distribution_requires(DISTRIBUTION)
    if lines is None:
        fact = "Hotplate runs from its sources and is not installed, so versions were not compared"
        yield note("packages", fact, "install it with: pip install -e .")
        return
    wanted = [one for one in map(parse_requirement, lines) if one is not None]
    yield from _main([one for one in wanted if not one.extra])
    extras: dict[str, list[Requirement]] = {}
    for one in wanted:
        if one.extra:
            extras.setdefault(one.extra, []).append(one)
    for name, requirements in extras.items():
        yield from _extra(name, requirements, needed=name in needed)


def _main(requirements: Sequence[Requirement]) -> Iterator[DoctorFinding]:
    versions = {one.name: distribution_version(one.name) for one in requirements}
    fine = []
    for one in requirements:
        version = versions[one.name]
        if not version:
            yield bad("packages", f"{one.name} is not installed", f"install it with: pip install '{_spelled(one)}'")
        elif not one.accepts(version):
            fact = f"{one.name} {version} is installed, but {one.versions} is needed"
            yield warning("packages", fact, f"install it with: pip install '{_spelled(one)}'")
        else:
            fine.append(f"{one.name} {version}")
    if fine:
        yield ok("packages", ", ".join(fine))


def _extra(name: str, requirements: Sequence[Requirement], *, needed: bool) -> Iterator[DoctorFinding]:
    versions = {one.name: distribution_version(one.name) for one in requirements}
    missing = [one.name for one in requirements if not versions[one.name]]
    wrong = [one for one in requirements if versions[one.name] and not one.accepts(versions[one.name])]
    area, hint = f"extra {name}", f"install it with: pip install '{DISTRIBUTION}[{name}]'"
    purpose = EXTRAS.get(name, "")
    if missing:
        fact = f"not installed: {', '.join(missing)}" + (f"; it is needed to {purpose}" if purpose else "")
        yield bad(area, fact, hint) if needed else note(area, fact, hint)
    for one in wrong:
        yield warning(area, f"{one.name} {versions[one.name]} is installed, but {one.versions} is needed", hint)
    if not missing and not wrong:
        yield ok(area, ", ".join(f"{one.name} {versions[one.name]}" for one in requirements))


def _spelled(one: Requirement) -> str:
    return f"{one.name}{one.versions}"

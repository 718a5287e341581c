"""Profiles with sections of their own: the document of one profile, and which profile builds for a device.

    [profile.s3.toolchain]        stands in place of the same keys of [toolchain]
    chip = "esp32s3"

Works on what tomllib read, before anything is checked. Does not know types, firmware or files. Invariant: a profile
without sections of its own means the document as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cache.named_tuple import NamedTuple
from pipeline.config.schema import ToolchainConfig
from pipeline.config.values import COMPILED_KEYS, NINJA_KINDS, PREBUILT

if TYPE_CHECKING:
    from pipeline.formats.toml_positions import KeyPath

_GIVEN = (PREBUILT, *NINJA_KINDS)
"""Kinds of toolchain that compile by other people's commands."""
OVERRIDABLE = (
    "project",
    "toolchain",
    "prebuilt",
    "bootloader",
    "partitions",
    "flash",
    "budget",
    "size",
    "verify",
    "readiness",
)
"""Sections of which a profile may have its own keys: what is built, and how a board with it is judged."""


class ProfileDocument(NamedTuple):
    """The document as one profile means it, and the sections and keys that the profile wrote itself."""

    document: Mapping[str, Any]
    profile: str
    own: frozenset[tuple[str, ...]] = frozenset()
    usual_chip: str = ""
    """What the document itself builds for, where the profile has sections of its own; `""`: only firmware can tell."""

    def place(self, path: KeyPath) -> KeyPath:
        """Where a path of this document stands in the text."""
        return ("profile", self.profile, *path) if path[:2] in self.own or path[:1] in self.own else path


def own_sections(table: Any) -> dict[str, Any]:
    """The sections that a `[profile.NAME]` has of its own."""
    return {name: table[name] for name in OVERRIDABLE if name in table} if isinstance(table, dict) else {}


def profile_name(document: Mapping[str, Any], wanted: str) -> str:
    """The profile that `wanted` means; `""`: the project's."""
    project = document.get("project")
    said = project.get("profile") if isinstance(project, dict) else None
    return wanted or (said if isinstance(said, str) else "") or "local-fast"


def document_of(document: Mapping[str, Any], profile: str) -> ProfileDocument:
    """The document with the profile's own keys in their sections. Where it compiles and the rest of the text does not,
    or the other way round, what only concerns the other kind is left out."""
    profiles = document.get("profile")
    table = profiles.get(profile) if isinstance(profiles, dict) else None
    mine = own_sections(table)
    if not mine or not all(isinstance(section, dict) for section in mine.values()):
        return ProfileDocument(document, profile)
    merged = dict(document)
    kind = mine.get("toolchain", {}).get("kind")
    if kind is not None and (kind in _GIVEN) != (_kind(document) in _GIVEN):
        merged = _without(merged, profile, to_prebuilt=kind in _GIVEN)
    own: set[tuple[str, ...]] = set()
    for name, section in mine.items():
        below = merged.get(name)
        own.update((name, key) for key in section)
        if not isinstance(below, dict):
            own.add((name,))
        merged[name] = {**(below if isinstance(below, dict) else {}), **section}
    below = document.get("toolchain")
    chip = below.get("chip") if isinstance(below, dict) else None
    if chip is None and _kind(document) not in _GIVEN:
        chip = ToolchainConfig._field_defaults["chip"]
    return ProfileDocument(merged, profile, frozenset(own), chip if isinstance(chip, str) else "")


def _kind(document: Mapping[str, Any]) -> Any:
    toolchain = document.get("toolchain")
    return toolchain.get("kind") if isinstance(toolchain, dict) else None


def _without(document: dict[str, Any], profile: str, *, to_prebuilt: bool) -> dict[str, Any]:
    if not to_prebuilt:
        return {name: section for name, section in document.items() if name != "prebuilt"}
    left = {name: section for name, section in document.items() if name not in ("bootloader", "library")}
    for name, section in left.items():
        if name in OVERRIDABLE and isinstance(section, dict):
            left[name] = {key: value for key, value in section.items() if (name, key) not in COMPILED_KEYS}
    profiles = document["profile"]
    left["profile"] = {name: table if name == profile else {} for name, table in profiles.items()}
    return left


def written_chips(document: Mapping[str, Any]) -> dict[str, str]:
    """profile -> the chip that it says itself that it builds for."""
    profiles = document.get("profile")
    found = {}
    for name, table in profiles.items() if isinstance(profiles, dict) else ():
        chip = own_sections(table).get("toolchain")
        chip = chip.get("chip") if isinstance(chip, dict) else None
        if isinstance(chip, str):
            found[name] = chip
    return found


def profile_of(device: Mapping[str, Any], usual: str, usual_chip: str, chips: Mapping[str, str]) -> str:
    """The profile whose build goes to a device: its own, else the usual one, else the only one that says that it builds
    for the device's chip."""
    if device.get("profile"):
        return str(device["profile"])
    chip = device.get("chip", usual_chip)
    fitting = [name for name, of in chips.items() if of == chip]
    return fitting[0] if chip != usual_chip and len(fitting) == 1 else usual

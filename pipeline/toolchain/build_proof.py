"""May `[prebuilt] build` be left out? The proof of its last run: what it read, and what it made, by stamps or bytes.

Knows files and the environment; not what the build is, and runs nothing. Invariants: `standing` is a proof only while
the command, its program, the environment that builds look at, every file of the evidence and every file that was made
are what they were when the build had ended, and each pattern matches the same files; a proof is written only if nothing
that the build read, other than what it made itself, was changed since it was started. Without evidence there is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache import statefile
from cache.fileclock import FileClock, Moment
from cache.named_tuple import NamedTuple
from cache.stamps import StampTable
from pipeline.config.schema import Prebuilt
from pipeline.fastpath.watched import Watched, settled_stamp
from pipeline.toolchain.build_evidence import collect, first_other_match, has_evidence, look, program_of
from pipeline.toolchain.other_tools import OtherTool

KIND = "prebuilt build 2"
"""The value is (key, rows, products, listed, absent, matched, text, stamps): rows and products are name -> SHA-256;
listed: directory -> stamp; matched: pattern -> names."""
VARIABLES = (
    *("PATH", "CC", "CXX", "CPP", "AR", "AS", "LD", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "ASFLAGS", "LIBS"),
    *("MAKEFLAGS", "CROSS_COMPILE", "ARCH", "TARGET", "BOARD", "PORT", "V", "DEBUG", "CPATH", "C_INCLUDE_PATH"),
    *("CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "SOURCE_DATE_EPOCH", "PYTHONPATH", "VIRTUAL_ENV", "HOME"),
)
PREFIXES = ("IDF_", "ESP_", "ZEPHYR_", "PLATFORMIO_", "ARDUINO_", "CARGO_", "RUST", "CMAKE_", "GNUARM", "WEST_")
"""What builds look at in the environment, beside what `[prebuilt] env` names."""


class Standing(NamedTuple):
    """`text`: what proves it; or `why_not`, a sentence."""

    text: str = ""
    why_not: str = ""


class BuildProof:
    """Of one command. Reads its state once."""

    def __init__(self, root: Path, state_dir: Path, section: Prebuilt) -> None:
        self._root, self._state_dir, self._section = root, state_dir, section
        meant = repr((section.build, section.directory, sorted(section.files.items())))
        name = hashlib.sha256(meant.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self._path = state_dir / f"prebuilt-build.{name}.v1.state"
        self._clock = FileClock((str(state_dir),))
        value, _ = statefile.load(self._path, KIND)
        self._value: tuple[Any, ...] | None = value if value.__class__ is tuple and len(value) == 8 else None
        self._table = StampTable(self._place, self._value[7] if self._value else None, clock=self._clock)

    def begin(self) -> Moment:
        """The build is started now: nothing of the old proof counts any more."""
        self._value = None
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._state_dir.mkdir(parents=True, exist_ok=True)
        return self._clock.met(str(self._root)).moment()

    def standing(self) -> Standing:
        """Is there a proof that a run would change nothing?"""
        if not has_evidence(self._section):
            return Standing(why_not="nothing says what it reads")
        value = self._value
        if value is None:
            return Standing(why_not="it is not known what it read")
        key, rows, products, listed, absent, matched, text, _ = value
        if key != self._key():
            return Standing(why_not=_first_moved(key, self._key()))
        if found := next((path for path in absent if os.path.lexists(path)), ""):
            return Standing(why_not=f"{found} is new")
        if any(stamp is None or settled_stamp(path) != stamp for path, stamp in listed.items()):
            listing, now = look(self._root, self._section, self._state_dir)
            if moved := first_other_match(now, matched):
                return Standing(why_not=moved)
            listed, absent = dict(listing.watched), tuple(listing.absent)
            self._value = value = (*value[:3], listed, absent, *value[5:])
            self._save(value)
        for names, how in ((rows, "changed"), (products, "is not what the build made")):
            for name, sha256 in names.items():
                if self._now(name) != sha256:
                    return Standing(why_not=f"{name} {how if self._now(name) else 'is gone'}")
        self._keep_stamps(value)
        return Standing(text)

    def record(self, began: Moment, made: Sequence[str]) -> str:
        """The build has ended well and made these: keep the proof. Why there is none, `""` if there is one."""
        if not has_evidence(self._section):
            return "nothing says what it reads"
        evidence = collect(self._root, self._section, self._state_dir)
        if isinstance(evidence, str):
            return evidence
        rows: dict[str, str] = {}
        products = {name: self._now(name) for name in made}
        for name, may_be_new in evidence.files.items():
            if name in products:
                continue
            rows[name] = self._now(name)
            if not rows[name]:
                return f"{name} cannot be read"
            if not may_be_new and not self._is_before(name, began):
                return f"{name} was changed while it built"
        self._table.keep_only({*rows, *products})
        self._table.settle()
        listed = {path: stamp and tuple(stamp) for path, stamp in evidence.listing.watched.items()}
        matched = {pattern: tuple(names) for pattern, names in evidence.matched.items()}
        absent = tuple(evidence.listing.absent)
        self._value = (self._key(), rows, products, listed, absent, matched, evidence.text, self._table.plain())
        return self._save(self._value)

    def watched(self) -> Watched | None:
        """What a standing proof depends on, for who believes it by stamps; None if there is none."""
        if self._value is None or not has_evidence(self._section):
            return None
        _, rows, products, listed, absent, *_ = self._value
        names = (*VARIABLES, *self._section.env, *self._own_names())
        names = (*names, *OtherTool(self._root, self._section.build).variables())
        return Watched(listed, absent, tuple(map(self._place, (*rows, *products))), tuple(dict.fromkeys(names)))

    # --- parts ------------------------------------------------------------------------------------

    def _key(self) -> tuple[Any, ...]:
        section = self._section
        told = OtherTool(self._root, section.build).variables()
        names = sorted({*VARIABLES, *section.env, *self._own_names(), *told})
        variables = tuple((name, os.environ[name]) for name in names if name in os.environ)
        return (
            tuple(section.build),
            (tuple(section.inputs), tuple(section.depfiles), tuple(section.ninja), tuple(section.env)),
            program_of(self._root, section.build[0]),
            variables,
        )

    def _own_names(self) -> list[str]:
        return [name for name in os.environ if name.startswith(PREFIXES)]

    def _place(self, name: str) -> str:
        return name if name.startswith("/") else f"{self._root}/{name}"

    def _now(self, name: str) -> str:
        """SHA-256 of what the file holds, `""` for what cannot be read."""
        try:
            entry = self._table.current(name)
        except OSError:
            return ""
        return "" if entry is None else entry.sha256

    def _is_before(self, name: str, began: Moment) -> bool:
        place = self._place(name)
        try:
            return self._clock.is_before(os.stat(place), place, began)  # noqa: PTH116
        except OSError:
            return False

    def _keep_stamps(self, value: tuple[Any, ...]) -> None:
        if self._table.changed:
            self._save((*value[:7], self._table.plain()))

    def _save(self, value: tuple[Any, ...]) -> str:
        try:
            statefile.save(self._path, KIND, value)
        except OSError as error:
            return f"{self._path.name} cannot be written: {error.strerror}"
        return ""


def _first_moved(old: Any, new: Any) -> str:
    """Which part of the key is another one."""
    names = ("the command", "what [prebuilt] declares", "the program", "the environment")
    for name, before, after in zip(names, old, new, strict=False):
        if before != after:
            if name == "the environment":
                moved = sorted({row[0] for row in set(before) ^ set(after)})
                return f"{moved[0]} of the environment is another one"
            return f"{name} is another one"
    return "the key is another one"

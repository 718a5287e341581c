"""How large the application of this build is: measured after a link, remembered otherwise.

Reads the ELF file's headers, and the map only when somebody asks by archive. Does not know what a size means
(`report/size.py`). Invariant: what is remembered is used only for the ELF file and the map that it was measured from; a
file that is missing or damaged costs the size, with a reason, and never the build.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from cache.durable import open_regular, read_file, read_text, write_atomic
from cache.named_tuple import NamedTuple
from pipeline.model import Failure, FailureCategory, Stage
from pipeline.records import json_text, parse_json

if TYPE_CHECKING:
    from pipeline.config.schema import DeployConfig
    from pipeline.formats.elf import LoadedSection
    from pipeline.formats.placement import Placement
    from pipeline.report.size import Size
    from pipeline.report.size_measured import Measured
    from pipeline.run.built_images import BuiltImages
    from pipeline.run.project import Project

SCHEMA = 1
"""Of the remembered file: `{schema, stamps: {path: [size, mtime_ns]}, size}`."""
MOST_MAP_BYTES = 512 * 1024 * 1024


class SizedBuild(Protocol):
    """What is asked of a build."""

    project: Project

    @property
    def config(self) -> DeployConfig: ...
    @property
    def placements(self) -> Sequence[Placement]: ...
    @property
    def images(self) -> BuiltImages: ...
    def notice(self, text: str) -> None:
        """Lines for the user."""
        ...


class SizeFiles(NamedTuple):
    """Where the application lies: paths from the root, `""` for what there is not. `limit`: bytes of its partition."""

    chip: str
    elf: str
    map: str
    image: str
    limit: int


class BuiltSizes:
    """Of one profile. `remembered`: the file that keeps the size of the last report."""

    def __init__(self, root: Path, state_dir: Path, profile: str) -> None:
        self._root = root
        self._path = state_dir / "sizes.v1" / f"{profile}.json"
        self._before_path = self._path.with_suffix(".before.json")
        self._current: Size | None = None

    # --- what the last report said ----------------------------------------------------------------

    def last(self) -> Size | None:
        """The size that was reported last; None where nothing usable is remembered."""
        return self._read(self._path)

    def _read(self, path: Path) -> Size | None:
        kept = self._kept(path)
        return None if kept is None else kept["size"]

    def _kept(self, path: Path) -> Mapping[str, Any] | None:
        from pipeline.report.size import is_size

        try:
            kept = parse_json(read_text(path))
            return kept if kept["schema"] == SCHEMA and is_size(kept["size"]) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def before_last(self) -> Size | None:
        """The size before that was another one, for whoever looks at a build after its report."""
        return self._read(self._before_path)

    def remember(self, size: Size) -> None:
        """For the next report. A disk that is full costs a difference and no build."""
        with contextlib.suppress(OSError):
            if self.last() is not None:
                os.replace(self._path, self._before_path)  # noqa: PTH105
        stamps = {path: stamp for path in (size["elf"], size["map"]) if path and (stamp := self._stamp(path))}
        text = json_text({"schema": SCHEMA, "stamps": stamps, "size": size}, separators=(",", ":"))
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, text.encode(), durable=False)

    def _stamp(self, path: str) -> list[int] | None:
        try:
            status = os.stat(self._root / path)  # noqa: PTH116
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns]

    # --- what is there ----------------------------------------------------------------------------

    def forget(self) -> None:
        """The files are about to be written again."""
        self._current = None

    def current(self, files: SizeFiles, *, with_map: bool = True) -> Size:
        """The size of what lies there now, without a comparison. Without the map it has no archives, unless they are
        known."""
        from pipeline.report.size_measured import size_of

        if self._current is None:
            kept = self._kept(self._path)
            if kept is not None and self._is_of(kept, files):
                self._current = kept["size"]
            elif not with_map:
                return size_of(self.measure(files, with_map=False))
            else:
                self._current = size_of(self.measure(files))
        return self._current

    def _is_of(self, kept: Mapping[str, Any], files: SizeFiles) -> bool:
        size, stamps = kept["size"], kept.get("stamps")
        if (size["elf"], size["room"]) != (files.elf, files.limit) or not isinstance(stamps, dict):
            return False
        there = files.map if self._stamp(files.map) else ""
        return size["map"] == there and all(
            self._stamp(path) == stamps.get(path) for path in (files.elf, there) if path
        )

    def measure(self, files: SizeFiles, *, with_map: bool = True) -> Measured:
        """Read the ELF file and, where it has one, its map. What cannot be read is said in the note."""
        from pipeline.report.size_measured import Measured

        image, there = self._stamp(files.image), files.map if self._stamp(files.map) else ""
        measured = Measured(files.chip, files.elf, there, "", image[0] if image else 0, files.limit, ())
        sections = self._sections(files)
        if isinstance(sections, str):
            return measured._replace(note=sections)
        shares, note = self._shares(files, sections) if with_map else ((), "")
        return measured._replace(note=note, sections=sections, shares=shares)

    def _sections(self, files: SizeFiles) -> tuple[LoadedSection, ...] | str:
        """What of the ELF file is loaded, or why that cannot be told."""
        from pipeline.formats import elf

        if not files.elf:
            return "this build leaves no ELF file beside the application"
        try:
            handle, _ = open_regular(str(self._root / files.elf))
            with os.fdopen(handle, "rb") as stream:

                def read(offset: int, size: int) -> bytes:
                    stream.seek(offset)
                    return stream.read(size)

                found = elf.loaded(read)
        except OSError as error:
            return f"{files.elf} cannot be read: {error.strerror}"
        return f"{files.elf}: {found}" if isinstance(found, str) else found

    def _shares(self, files: SizeFiles, sections: tuple[LoadedSection, ...]) -> tuple[Any, str]:
        from pipeline.formats.link_map import read_map

        stamp = self._stamp(files.map) if files.map else None
        if stamp is None:
            where = posixpath.basename(files.map) or "a map"
            return (), f"the linker left no map ({where}) beside the ELF file"
        if stamp[0] > MOST_MAP_BYTES:
            return (), f"{files.map} has {stamp[0]} bytes, more than are read"
        try:
            found = read_map(read_file(str(self._root / files.map)), sections)
        except OSError as error:
            return (), f"{files.map} cannot be read: {error.strerror}"
        return ((), f"{files.map}: {found}") if isinstance(found, str) else (found, "")


def size_files(build: SizedBuild) -> SizeFiles | None:
    """Where the application of this build lies; None where nothing goes to flash."""
    from pipeline.formats.placement import APPLICATION

    config, root = build.config, build.project.root
    app = next((one for one in build.placements if one.name == APPLICATION), None)
    if app is None:
        return None
    if app.source:
        elf = next((path for path in _elves(root, config, app.source) if (root / path).is_file()), "")
    else:
        elf = f"build/{build.project.profile}/app.elf"
    map_file = str(PurePosixPath(elf).with_suffix(".map")) if elf else ""
    return SizeFiles(config.toolchain.chip, elf, map_file, build.images.path_of(APPLICATION), app.limit)


def _elves(root: Path, config: DeployConfig, image: str) -> Iterator[str]:
    """Where the ELF file of an image may lie: beside it, or where an ESP-IDF build says."""
    yield str(PurePosixPath(image).with_suffix(".elf"))
    directory = config.prebuilt.directory
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        said = parse_json(read_text(root / directory / "project_description.json"))["app_elf"]
        path = posixpath.normpath(posixpath.join(directory, said))
        if not path.startswith(("/", "..")):
            yield path


def reported_size(build: SizedBuild, sizes: BuiltSizes, *, moved: bool) -> Size | None:
    """The size of a build whose stage link ended well, for its report: beside that of the report before. Unless stage
    link `moved` something it is that one again, and no file of the build is looked at."""
    from pipeline.report.size import SizeLimits, compared

    config = build.config.size
    limits = SizeLimits(config.totals, config.sections, config.archives)
    last = sizes.last()
    if last is not None and not moved:
        return compared(last, last, limits)
    files = size_files(build)
    if files is None:
        return None
    current = sizes.current(files)
    if current != last:
        sizes.remember(current)
    return compared(current, last, limits)


def excess_failure(build: SizedBuild, sizes: BuiltSizes) -> Failure | None:
    """Why this build may not be flashed: a limit of `[size]` that it does not keep."""
    from pipeline.report.size import SizeLimits, compared, excesses, unjudged

    config = build.config.size
    files = size_files(build) if config.any else None
    if files is None:
        return None
    limits = SizeLimits(config.totals, config.sections, config.archives)
    size = compared(sizes.current(files, with_map=bool(config.archives)), None, limits)
    for what in unjudged(size, limits):
        build.notice(f"note: {what}")
    found = excesses(size)
    if not found:
        return None
    from pipeline.failures import fail
    from pipeline.toolchain.config_places import config_place

    lines = [
        (config_place(build.project.root, build.config, ("size", *one.key)), one.message(size["elf"])) for one in found
    ]
    return fail(
        FailureCategory.IMAGE_TOO_LARGE,
        stage=Stage.LINK,
        where=lines[0][0],
        message=lines[0][1],
        hint="make it smaller (`doit size --by archive` names the largest parts), or raise the limit",
        detail="\n".join(f"{where}: error: {message}" for where, message in lines[1:]),
    )

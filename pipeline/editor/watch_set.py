"""What `doit watch` looks at: the files that a build of this project depends on, and the directories that hold them.

Reads the configuration, lists directories and stats, as a run does before its first stage; runs and writes nothing.
Does not know how changes are noticed. Invariant: after a build that ended well, a change of any file in the project
that could make another one do something is either one of `files` or changes the next `WatchSet`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig
from pipeline.errors import DeployError
from pipeline.model import HOST_STAGES, Failure
from pipeline.run.build import Build, load_builds
from pipeline.run.options import Options
from pipeline.run.project import CONFIG_FILE, STATE_DIR

OWN_FILES = (CONFIG_FILE, "dodo.py", "pyproject.toml", "doit.cfg")
SKIPPED = ("build", "node_modules", "__pycache__")
"""Directories that are never searched for headers to come; hidden ones and reports are not either."""


class WatchSet(NamedTuple):
    """Absolute paths. `files`: whose change matters, present or not. `directories`: where to watch. `declared`: which
    files the patterns of deploy.toml match now. `images`: what a deploy writes."""

    files: frozenset[str]
    directories: frozenset[str]
    declared: tuple[str, ...]
    images: tuple[str, ...]
    products: tuple[str, ...]
    """Directories that builds write to: nothing there is a save."""

    def concerns(self, paths: Collection[str]) -> bool:
        """Is one of these a file that is known to matter?"""
        return not self.files.isdisjoint(paths)

    def may_concern(self, paths: Collection[str]) -> bool:
        """Could one of these matter to a build that failed, and so could not say what it reads?"""
        return any(
            os.path.dirname(path) in self.directories  # noqa: PTH120
            and not path.startswith(self.products)
            and not is_scratch(os.path.basename(path))  # noqa: PTH119
            for path in paths
        )


def watch_set(root: Path, options: Options) -> WatchSet:
    """The set as of now. With a configuration that cannot be used: the files that could repair it."""
    builds = load_builds(options, root)
    if isinstance(builds, Failure):
        own = [f"{root}/{name}" for name in OWN_FILES]
        return WatchSet(frozenset(own), frozenset([str(root)]), (), (), _products(root))
    sets = [_of_build(root, build) for build in builds]
    return WatchSet(
        frozenset().union(*(one.files for one in sets)),
        frozenset().union(*(one.directories for one in sets)),
        *(tuple(dict.fromkeys(path for one in sets for path in one[n])) for n in (2, 3, 4)),
    )


def _products(root: Path) -> tuple[str, ...]:
    return f"{root}/build/", f"{root}/{STATE_DIR}/"


def _of_build(root: Path, build: Build) -> WatchSet:
    own = [f"{root}/{name}" for name in OWN_FILES]
    config = build.config
    table = f"{root}/{config.partitions.table}"
    products = (*_products(root), f"{root}/{config.reports.dir}/")
    try:
        return _of_engine(build, own, table, products)
    except DeployError:
        # no sources, no tools, no table...: any of the directories that deploy.toml names may bring what is missing
        directories = {str(root), os.path.dirname(table), *_include_trees(root, config)}  # noqa: PTH120
        directories.update(_pattern_directories(root, config))
        return WatchSet(frozenset([*own, table]), frozenset(directories), (), (), products)
    finally:
        build.close()


def _of_engine(build: Build, own: list[str], table: str, products: tuple[str, ...]) -> WatchSet:
    root, engine = build.project.root, build.engine
    declared = tuple(dict.fromkeys(path for action in engine.graph.order for path in action.inputs))
    made = engine.graph.producer
    images = tuple(build.toolchain.images.values())
    paths = [*engine.sources(), *(path for path in images if path not in made)]
    for action in engine.graph.order:
        record = engine.record(action)
        paths += record.absent if record is not None else ()
    # Headers and programs of the toolchain are no matter of saving files.
    files = {*own, table, *(_absolute(root, path) for path in dict.fromkeys(paths) if path[:1] != "{")}
    directories = {os.path.dirname(path) for path in files}  # noqa: PTH120
    directories.update(_include_trees(root, build.config))
    directories.update(place for place in build.toolchain.watched.listed if _is_searched(root, place))
    # A link from a searched directory to what a build makes: its writing is no save.
    found = _with_link_targets(files) - {_absolute(root, path) for path in made if path not in images}
    directories.update(os.path.dirname(path) for path in found - files)  # noqa: PTH120
    return WatchSet(
        frozenset(found), frozenset(directories), declared, tuple(_absolute(root, path) for path in images), products
    )


def unfinished(root: Path, options: Options) -> tuple[str, ...]:
    """What a build would find to do. Stats only. A project that cannot be loaded has nothing more to say than its last
    build."""
    builds = load_builds(options, root)
    if isinstance(builds, Failure):
        return ()
    found: list[str] = []
    for build in builds:
        try:
            found += [str(reason) for stage in HOST_STAGES for reason in build.host_verdict(stage).reasons]
        finally:
            build.close()
    return tuple(found)


def _absolute(root: Path, path: str) -> str:
    return os.path.normpath(path if path[:1] == "/" else f"{root}/{path}")


def _include_trees(root: Path, config: DeployConfig) -> Iterator[str]:
    """Directories in which a header may be that no build has found yet, as after `#include "new.h"` with an error."""
    for place in dict.fromkeys((*config.project.include, *config.bootloader.include)):
        for directory, names, _ in os.walk(_absolute(root, place)):
            names[:] = [name for name in names if not name.startswith(".") and name not in SKIPPED]
            yield directory


def _pattern_directories(root: Path, config: DeployConfig) -> Iterator[str]:
    """The directory of each pattern of sources, or the nearest above it that exists."""
    for pattern in (*config.project.sources, *config.bootloader.sources):
        directory = _absolute(root, pattern.split("*", maxsplit=1)[0].rpartition("/")[0])
        while not os.path.isdir(directory):  # noqa: PTH112
            directory = os.path.dirname(directory)  # noqa: PTH120
        yield directory


def _is_searched(root: Path, place: str) -> bool:
    """Does this directory belong to the project, and not to an environment or a build within it?"""
    if place != str(root) and not place.startswith(f"{root}/"):
        return False
    parts = place[len(str(root)) :].split("/")
    return not any(part.startswith(".") or part in (*SKIPPED, "site-packages") for part in parts)


def _with_link_targets(files: set[str]) -> set[str]:
    """Notifications name a file by the directory in which it really lies."""
    real = {directory: os.path.realpath(directory) for directory in {os.path.dirname(p) for p in files}}  # noqa: PTH120
    found = set(files)
    for path in files:
        directory, name = os.path.split(path)
        if real[directory] != directory:
            found.add(f"{real[directory]}/{name}")
        if os.path.islink(path):  # noqa: PTH114
            found.add(os.path.realpath(path))
    return found


def is_scratch(name: str) -> bool:
    """Names that editors use for a moment: swap files, backups, Vim's probe `4913`."""
    return name.startswith((".", "#")) or name.endswith(("~", ".swp", ".tmp")) or name.isdigit()

"""A build that says itself which actions there are: ninja's manifest is made before it is read, and what goes to flash
is known for certain once the build is done.

Knows when a build has to be read again. Does not know manifests, statements or images. Invariant: what is read again
is no more than what can have become another; a build that never stays as it is ends as a failure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage, StageWork

if TYPE_CHECKING:
    from pipeline.config.schema import DeployConfig
    from pipeline.engine.engine import Engine
    from pipeline.run.engines import Engines
    from pipeline.run.project import Project
    from pipeline.toolchain.build import Toolchain

MOST_GENERATIONS = 100
"""As ninja: how often a manifest may be made again within one run."""


class RereadBuild(Protocol):
    """What is asked of a build."""

    project: Project

    @property
    def config(self) -> DeployConfig: ...
    @property
    def toolchain(self) -> Toolchain: ...
    @property
    def engines(self) -> Engines: ...
    @property
    def engine(self) -> Engine: ...
    def run_actions(self, stage: Stage, category: FailureCategory) -> StageWork:
        """Let the engine run the actions of `stage`; its failures become one Failure of `category`."""
        ...

    def forget(self, *parts: str, toolchain: Toolchain | None = None) -> None:
        """Make these parts anew when they are asked for."""
        ...


def generate(build: RereadBuild) -> Failure | None:
    """Let the statements run that make the manifest, and read it again, until it stays as it is."""
    for _ in range(MOST_GENERATIONS):
        if build.engines.of(Stage.FINGERPRINT).verdict(Stage.FINGERPRINT).up_to_date:
            return None
        before = _manifests(build)
        work = build.run_actions(Stage.FINGERPRINT, FailureCategory.ACTION_FAILED)
        if work.failure is not None or _manifests(build) == before:
            return work.failure
        build.engines.save()
        build.forget("toolchain", "engines")
    where = f"{build.config.ninja.directory}/build.ninja"
    message = f"it is made again each time: {MOST_GENERATIONS} times now"
    hint = "look for a statement whose output is older than what it reads"
    return fail(FailureCategory.ACTION_FAILED, stage=Stage.FINGERPRINT, where=where, message=message, hint=hint)


def make_images(build: RereadBuild, done: StageWork) -> StageWork:
    """The statements that make firmware have run: what is to go where is known now, if it was not before, or is
    another one; then its images are made, too."""
    before = (build.config.firmware, _table(build))
    failure = build.project.reload()
    if failure is None and build.config.firmware is None:
        where = build.config.path
        message = "the build made no firmware: a file that goes to flash is missing"
        hint = "build the target that makes it: [ninja] targets"
        failure = fail(FailureCategory.ACTION_FAILED, stage=Stage.LINK, where=where, message=message, hint=hint)
    if failure is not None:
        return done._replace(failure=failure)
    if (build.config.firmware, _table(build)) == before:
        return done
    build.engines.save()
    recorded = {action for action in build.toolchain.actions if build.engine.record(action) is not None}
    build.forget("toolchain", "engines", "images")
    # What runs each time has run.
    actions = [each for each in build.toolchain.actions if each.statement is None or each in recorded]
    build.forget(toolchain=build.toolchain._replace(actions=tuple(actions)))
    more = build.run_actions(Stage.LINK, FailureCategory.LINK_ERROR)
    names = dict.fromkeys((*done.counts, *more.counts))
    counts = {name: done.counts.get(name, 0) + more.counts.get(name, 0) for name in names}
    counts["up_to_date"] = more.counts["up_to_date"]
    return StageWork((*done.reasons, *more.reasons), counts, more.failure)


def _manifests(build: RereadBuild) -> list[object]:
    """What the files are that say which actions there are."""
    return [
        (status.st_mtime_ns, status.st_size, status.st_ino) if (status := _status(path)) is not None else None
        for path in build.toolchain.manifests
    ]


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        return None


def _table(build: RereadBuild) -> object:
    return build.project.table if build.config.firmware is not None else None

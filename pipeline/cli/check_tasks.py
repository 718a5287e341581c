"""`check:*` as doit tasks: names, docs, and how a violation is shown.

One of the modules that know doit. Which header is out of bounds, the toolchain's modules know. Invariant: declaring the
tasks imports nothing of what they run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from doit.exceptions import TaskFailed

from pipeline.run.current import current, told


def check() -> Iterator[dict[str, Any]]:
    """The group and its task."""
    yield {"basename": "check", "name": None, "doc": "checks of the sources beside compiling them"}
    yield {
        "basename": "check",
        "name": "boundary",
        "doc": "firmware/core and firmware/modules reach for nothing of the platform",
        "actions": [_check_boundary],
        "verbosity": 2,
    }


@told(TaskFailed)
def _check_boundary() -> TaskFailed | None:
    from pipeline.toolchain import boundary

    project, runner = current().project, current().build.runner
    failures = boundary.check(project.root, project.config, runner, project.state_dir)
    for failure in failures:
        print(failure.line(), file=sys.stderr)
    if not failures:
        return None
    print(f"hint: {failures[0].hint}", file=sys.stderr)
    return TaskFailed(f"{len(failures)} violations")

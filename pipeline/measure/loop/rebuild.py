"""Build the project a second time from nothing, and say which outputs differ and why.

Knows how to build in a scratch copy and who reads what; where a difference lies, `measure/loop/determinism.py` knows.
Does not touch the first copy. The second lies in another directory and is built at another time, so that a path or a
clock in an output shows. Invariant: a build that cannot be made is said, never taken for "the same".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.measure.experiment import ProjectCopy
from pipeline.measure.loop.determinism import Culprit, blame, locate
from pipeline.model import Action, Failure
from pipeline.run.build import load_build
from pipeline.run.options import Options


def differences(built: ProjectCopy, again: ProjectCopy) -> list[Culprit] | str:
    """The culprits, or why there was nothing to compare. `built`: a copy with products; `again`: a fresh one."""
    child = again.build("link")
    if not child.ok:
        return child.failure[1] or f"doit link ended with {child.exit_code}"
    graph = _graph(built.options, built.project)
    if isinstance(graph, str):
        return graph
    actions, discovered = graph
    first, second = (_products(copy.project, actions) for copy in (built, again))
    return [
        Culprit(name, path, locate(first.get(path, b""), second.get(path, b"")))
        for name, path in blame(actions, discovered, first, second)
    ]


def _graph(options: Options, project: Path) -> tuple[tuple[Action, ...], Mapping[str, tuple[str, ...]]] | str:
    """The actions, and by name what they read beyond what they declare, from the records of the last build."""
    build = load_build(options, project)
    if isinstance(build, Failure):
        return build.line()
    try:
        engine = build.engine
        records = {action.name: engine.record(action) for action in engine.graph.order}
        discovered = {
            name: tuple(path for path, _ in record.discovered) for name, record in records.items() if record is not None
        }
        return tuple(engine.graph.order), discovered
    finally:
        build.close()


def _products(project: Path, actions: tuple[Action, ...]) -> dict[str, bytes]:
    """Every output that exists. Depfiles are no outputs and hold paths."""
    paths = dict.fromkeys(path for action in actions for path in action.outputs)
    return {path: (project / path).read_bytes() for path in paths if (project / path).is_file()}

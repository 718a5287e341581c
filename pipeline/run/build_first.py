"""`[prebuilt] build`: let the firmware's own build run before anything of it is read, unless that would change nothing.

Shows its output as it comes, and removes nothing that it made. Whether it may be left out is for
`toolchain/build_proof` to say; without declared evidence it runs each time. Does not know what the build is.
Invariants: two runs of a project never build at the same time; the command does not outlive this process; a build that
failed leaves no proof.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.config.schema import Prebuilt
from pipeline.effects.process import run_streamed
from pipeline.failures import fail
from pipeline.fastpath.state import FastPathState
from pipeline.formats.manifests import Firmware
from pipeline.model import Failure, FailureCategory
from pipeline.run.lock import ProjectLock
from pipeline.toolchain.build_evidence import program_of
from pipeline.toolchain.build_failures import build_failure
from pipeline.toolchain.build_proof import BuildProof
from pipeline.toolchain.given_builds import deciding_files
from pipeline.toolchain.prebuilt import elf_beside

if TYPE_CHECKING:
    from pipeline.config.values import Problem

    Found = Firmware | Problem | Failure | None


class GivenBuildPlace(NamedTuple):
    """`where`: the place of the command in deploy.toml; `to_stderr`: stdout is for events."""

    root: Path
    state_dir: Path
    where: str
    to_stderr: bool = False


def given_build(place: GivenBuildPlace, section: Prebuilt, find: Callable[[], Found]) -> tuple[Found, str]:
    """The firmware that `find` finds once its command has run, where it must; and how that went, for the report."""
    proof = BuildProof(place.root, place.state_dir, section)
    standing = proof.standing()
    if standing.text:
        return find(), f"skipped: {standing.text}"
    FastPathState(place.root, "").withdraw()
    began = proof.begin()
    failure = build_first(place.root, place.state_dir, section.build, place.where, to_stderr=place.to_stderr)
    if failure is not None:
        return failure, f"failed: {standing.why_not}"
    found = find()
    why_not = ""
    if isinstance(found, Firmware):
        made = dict.fromkeys((*(file.path for file in found.files), *deciding_files(section, found)))
        elfs = [elf for path in made if path.endswith(".bin") and (place.root / (elf := elf_beside(path))).is_file()]
        why_not = proof.record(began, [path for path in (*made, *elfs) if (place.root / path).is_file()])
    return found, f"ran: {standing.why_not}" + (f"; no proof for the next run: {why_not}" if why_not else "")


def build_first(
    root: Path, state_dir: Path, argv: Sequence[str], where: str, *, to_stderr: bool = False
) -> Failure | None:
    """Run the command, which stands at `where`, in `root`; why there is no firmware to read now. `to_stderr`: stdout is
    for events."""
    path = program_of(root, argv[0])
    if not path:
        message = f"the program '{argv[0]}' is not on PATH"
        hint = "install it, or activate its environment (ESP-IDF: . export.sh), or write its path within the project"
        return fail(FailureCategory.TOOLCHAIN_MISSING, stage=None, where=where, message=message, hint=hint)
    lock = ProjectLock(root, state_dir)
    busy = lock.acquire(lambda text: print(text, file=sys.stderr), lambda: False)
    if busy is not None:
        return busy
    sys.stdout.flush()
    try:
        code, said = run_streamed([path, *argv[1:]], root, to_stderr=to_stderr)
    except OSError as error:
        message = f"{path} cannot be run: {error.strerror}"
        return fail(FailureCategory.TOOLCHAIN_MISSING, stage=None, where=where, message=message)
    finally:
        lock.release()
    if code == 0:
        return None
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    return build_failure(said, str(root), os.path.isfile, where, f"`{shlex.join(argv)}` ended with {how}")

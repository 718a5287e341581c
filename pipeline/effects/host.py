"""Facts about this process, this checkout and this machine that reports carry.

Also who this machine is, for measurements. Knows the operating system and git. Invariant: what cannot be found out is
None or empty, never an error.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` makes enumerations of it
import contextlib
import os
import select
import time
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from cache.durable import read_text, write_atomic
from cache.named_tuple import NamedTuple


def process_age_ms() -> int | None:
    """Milliseconds since this process was started (clock ticks of 10 ms); None where /proc does not tell."""
    try:
        # the command name in field 2 may hold spaces and parentheses: count from its end; starttime is field 22
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0, round((time.clock_gettime(time.CLOCK_BOOTTIME) - started_s) * 1000))
    except (OSError, ValueError, IndexError, AttributeError):
        return None


ASKED_AT = "DEPLOY_ASKED_AT"
"""In the environment of a process that was started ahead: when it was told what to do (its monotonic clock)."""


def startup_ms() -> int | None:
    """Milliseconds since the user asked for this run; None where nothing tells."""
    asked = os.environ.get(ASKED_AT)
    try:
        return process_age_ms() if asked is None else round((time.monotonic() - float(asked)) * 1000)
    except ValueError:
        return None


class Revision(NamedTuple):
    """`sha`: 40 hex digits or `""` outside a repository; `dirty`: tracked files differ from it."""

    sha: str = ""
    dirty: bool = False


class _Asked:
    """A child and what it prints. Not through `subprocess`, whose import takes longer than a warm run looks at git.
    Raises OSError when it cannot be started."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._out, into = os.pipe()
        try:
            self._pid = os.posix_spawnp(
                command[0],
                command,
                environment,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, into, 1),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except BaseException:
            os.close(self._out)
            raise
        finally:
            os.close(into)

    def answer(self, timeout_s: float) -> bytes | None:
        """All that it prints; None when it fails, or takes longer: then it is killed."""
        deadline_s = time.monotonic() + timeout_s
        blocks: list[bytes] = []
        waiting = select.poll()
        waiting.register(self._out, select.POLLIN)
        try:
            while waiting.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
                block = os.read(self._out, 1 << 16)
                if not block:
                    return b"".join(blocks) if self._ends_well(deadline_s) else None
                blocks.append(block)
        finally:
            os.close(self._out)
        self._kill()
        return None

    def _ends_well(self, deadline_s: float) -> bool:
        while not (ended := self._look(os.WNOHANG))[0]:
            if time.monotonic() >= deadline_s:
                self._kill()
                return False
            time.sleep(0.001)
        return ended[1] == 0

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._look(0)

    def _look(self, how: int) -> tuple[int, int]:
        """(pid once it has ended, its status)"""
        try:
            return os.waitpid(self._pid, how)
        except ChildProcessError:  # somebody told the system to forget children
            return self._pid, 0


class _AskedOtherwise:
    """The same where no child can be started that way."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        import subprocess

        nothing = subprocess.DEVNULL
        self._child = subprocess.Popen(
            command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, env=dict(environment)
        )

    def answer(self, timeout_s: float) -> bytes | None:
        """All that it prints; None when it fails, or takes longer: then it is killed."""
        import subprocess

        try:
            output, _ = self._child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            return None
        return output if self._child.returncode == 0 else None


def git_places(root: Path) -> tuple[Path, Path] | None:
    """(top directory of the working tree, directory of hooks) of the repository that holds `root`; None without one."""
    import subprocess

    command = ["git", "-C", str(root), "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-path", "hooks"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    top, hooks = done.stdout.splitlines()
    return Path(top), Path(hooks)


class GitQuery:
    """Asks git in the background, so that a warm run does not wait for it."""

    def __init__(self, root: Path) -> None:
        self._child: _Asked | _AskedOtherwise | None = None
        self._found: Revision | None = None
        command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        with contextlib.suppress(OSError, ValueError):  # no git on this machine
            self._child = (_Asked if hasattr(os, "posix_spawnp") else _AskedOtherwise)(command, environment)

    def result(self, timeout_s: float = 2.0) -> Revision:
        """The answer, the same each time; empty when git is missing, fails, or takes longer than `timeout_s`."""
        if self._found is None:
            self._found = Revision()  # of a question that Ctrl-C ends: its pipe is closed then
            self._found = self._answer(timeout_s)
        return self._found

    def _answer(self, timeout_s: float) -> Revision:
        output = None if self._child is None else self._child.answer(timeout_s)
        if output is None:
            return Revision()
        lines = output.decode("utf-8", "replace").splitlines()
        sha = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
        dirty = any(line and not line.startswith("#") for line in lines)
        return Revision("" if sha == "(initial)" else sha, dirty)


def git_files(root: Path, timeout_s: float = 30.0) -> list[str] | None:
    """What git tracks or would track below `root`, relative to it; None when `root` is no working tree of git's, or git
    is missing or fails. Names that are not UTF-8 come as Python has them from the file system."""
    import subprocess

    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    # A project inside a directory that its repository ignores: git lists nothing of it.
    return names if done.returncode == 0 and names else None


def machine_facts() -> dict[str, str]:
    """Who measures here. `id` tells machines apart and says nothing of them: it is a digest."""
    import platform
    from hashlib import sha256

    cpu = _cpu_model() or platform.processor() or platform.machine()
    cores = str(os.cpu_count() or 1)
    own = "\0".join([_machine_id() or platform.node(), platform.system(), platform.machine(), cpu, cores])
    return {
        "id": sha256(own.encode()).hexdigest()[:12],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu,
        "cores": cores,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def parallel_jobs(cores: int | None = None) -> int:
    """How many commands a build has under way: as ninja by itself (`GuessParallelism` of its ninja.cc), two more than
    the cores that this process may use. While one has ended and the next is not started, a core has another one's work
    to do."""
    if cores is None:
        allowed = getattr(os, "sched_getaffinity", None)
        cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    return {0: 2, 1: 2, 2: 3}.get(cores, cores + 2)


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where the system does not count them."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def machine_id(directory: str | Path) -> str:
    """The `id` of `machine_facts`, kept in `directory`, since finding it out takes longer than all else that a run says
    of this machine. The name of the file keeps machines with a common home apart."""
    node = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    path = Path(directory) / f"machine-{crc32(f'{node} {os.cpu_count()}'.encode()):08x}"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = read_text(path).strip()
        if len(found) == 12 and set(found) <= set("0123456789abcdef"):
            return found
    found = machine_facts()["id"]
    with contextlib.suppress(OSError):
        write_atomic(path, f"{found}\n".encode("ascii"), durable=False)
    return found


def _cpu_model() -> str:
    """Linux only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except (OSError, ValueError):
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _machine_id() -> str:
    """systemd's; empty elsewhere."""
    try:
        return Path("/etc/machine-id").read_text().strip()
    except (OSError, ValueError):
        return ""

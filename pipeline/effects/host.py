"""Facts about this process, this checkout and this machine that reports carry.

Also who this machine is, for measurements. Knows the operating system and git. Invariant: what cannot be found out is
None or empty, never an error.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
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


def git_places(root: Path) -> tuple[Path, Path] | None:
    """(top directory of the working tree, directory of hooks) of the repository that holds `root`; None without one."""
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
        self._child: subprocess.Popen[str] | None = None
        command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        with contextlib.suppress(OSError):  # no git on this machine
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )

    def result(self, timeout_s: float = 2.0) -> Revision:
        """The answer; empty when git is missing, fails, or takes longer than `timeout_s`."""
        if self._child is None:
            return Revision()
        try:
            output, _ = self._child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            return Revision()
        if self._child.returncode != 0:
            return Revision()
        sha = next((line.split()[2] for line in output.splitlines() if line.startswith("# branch.oid ")), "")
        dirty = any(line and not line.startswith("#") for line in output.splitlines())
        return Revision("" if sha == "(initial)" else sha, dirty)


def git_files(root: Path, timeout_s: float = 30.0) -> list[str] | None:
    """What git tracks or would track below `root`, relative to it; None when `root` is no working tree of git's, or git
    is missing or fails. Names that are not UTF-8 come as Python has them from the file system."""
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

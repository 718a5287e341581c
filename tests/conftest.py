"""For every test: the user's own cache and state are out of reach, Ctrl-C means what it means in a terminal, and what
is needless on the way costs nothing: disks, and compiling Python's modules anew for each process."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from esp_pylib.logger import EspLog, EspLogBase
from hypothesis import HealthCheck, settings

from tests.forked import end_fork_server

# The script `pytest` has its own directory first on the path, and there lies esptool's script `esptool.py`.
sys.path[:] = [entry for entry in sys.path if not entry or Path(entry) != Path(sys.executable).parent]

# The same examples in every run, and however long they take: a busy machine is no defect. `deep` looks further, with
# other examples each time: pytest --hypothesis-profile=deep.
settings.register_profile(
    "suite", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", deadline=None, derandomize=False, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

RAM = Path("/dev/shm")
RAM_NEEDED = 1 << 30
"""Many times what the ordinary suite holds at once (50 MB, and a failed test keeps its directory)."""


def pytest_configure(config: pytest.Config) -> None:
    """Once in the process that starts the workers: they inherit its environment."""
    if hasattr(config, "workerinput"):
        if hasattr(signal, "SIGHUP"):
            # Under nohup it is ignored, and so would it be in the programs that are tested with it.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        return
    if "TMPDIR" not in os.environ and usable(RAM):
        # The product waits for the disk after each blob: a tenth of the suite's CPU time, and more of its waits.
        os.environ["TMPDIR"] = str(RAM)
        tempfile.tempdir = None
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Where nobody keeps compiled modules, each of a thousand processes would compile them for itself.
        os.environ["PYTHONPYCACHEPREFIX"] = _compiled_modules(config)


def _compiled_modules(config: pytest.Config) -> str:
    """Where this run's processes keep compiled modules: beside pytest's own cache, for the next run too, else in a
    directory that goes with this run."""
    if getattr(config, "cache", None) is not None:
        with contextlib.suppress(OSError):
            place = config.cache.mkdir("pycache")
            if os.access(place, os.W_OK):
                return str(place)
    place = Path(tempfile.mkdtemp(prefix="hotplate-pycache-"))
    config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))
    return str(place)


def usable(directory: Path) -> bool:
    """Is there a file system with room, whose files may be executed?"""
    if not os.access(directory, os.W_OK | os.X_OK):
        return False
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize >= RAM_NEEDED and not status.f_flag & os.ST_NOEXEC


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts its background jobs with SIGINT ignored, and every child of the tests would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Projects without `[cache] dir` share the cache of this session; the machine's name lies beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("user-state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_users_service() -> Iterator[None]:
    """No test may meet the service of whoever runs it. A short name: sockets have little room for theirs."""
    with tempfile.TemporaryDirectory(prefix="hp-", dir="/tmp") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", directory)
        yield


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """What was started to fork from ends with the session."""
    yield
    end_fork_server()


@pytest.fixture(scope="session")
def esptools_own_log() -> EspLogBase:
    """What esptool prints with, unless somebody replaces it."""
    import esptool

    assert esptool
    return EspLog.instance


@pytest.fixture(autouse=True)
def esptool_prints(esptools_own_log: EspLogBase) -> Iterator[None]:
    """A deploy in the test's own process keeps esptool quiet; whoever tests what esptool prints comes after it."""
    yield
    EspLog.set_logger(esptools_own_log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Nothing that collection makes goes before the end of the run: looking for garbage in it, meanwhile or later, is
    half of its time."""
    gc.disable()
    try:
        _import_from_another_place(session)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_from_another_place(session: pytest.Session) -> None:
    """Each worker imports the test modules from another place on, so that in a fresh checkout each module is compiled
    by one of them and found by the others. All begin at the same instant, and would compile the same at once."""
    inputs = getattr(session.config, "workerinput", None)
    if inputs is None:
        return
    root = session.config.rootpath
    folders = (root / argument for argument in session.config.args)
    files = sorted(file for folder in folders if folder.is_dir() for file in folder.rglob("test_*.py"))
    first = int(inputs["workerid"].removeprefix("gw")) * len(files) // inputs["workercount"]
    for file in (*files[first:], *files[:first]):
        name = ".".join(file.relative_to(root).with_suffix("").parts)
        # what is wrong with a module, or missing for it, its own collection says
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each worker begins with its share of the long tests, so that none is alone with one at the end. Workers are given
    consecutive pieces of the list, and later take from each other's ends."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    first = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    cuts = [len(rest) * n // workers for n in range(workers + 1)]
    items[:] = [item for n in range(workers) for item in (*first[n::workers], *rest[cuts[n] : cuts[n + 1]])]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """More than the cores: many tests wait for a board's modelled time, a poll or a child. On two cores eight workers
    take half the time of four, and all of the CPU."""
    del config
    return 4 + 2 * (os.cpu_count() or 1)

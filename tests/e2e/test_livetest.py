"""`doit livetest`, `doit host`, `doit all`, and the pytest plugin in a user's own project, whole, with real parts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.cli.status import status_text
from pipeline.livetest.devices import DeviceChoice, Unusable, open_devices
from pipeline.livetest.host_loop import HostLoop
from pipeline.livetest.selection import LiveOptions
from pipeline.model import Failure, FailureCategory
from pipeline.run.build import Build
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import ROOT, TIMEOUT_S, Space, environment

SMOKE = """tags = ["smoke"]
heap_floor = 60000
[[step]]
call = "health"
values = { ok = true }
observe = ["heap.free"]
"""
WRONG = '[[step]]\ncall = "ping"\nresult = "pang"\n'


@pytest.fixture
def live_space(host_space: Space) -> Space:
    """The built project with this repository's own unit tests in C, and two scenarios."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for this host")
    shutil.copytree(ROOT / "tests/firmware_c", host_space.file("tests/firmware_c"))
    host_space.file("tests/live").mkdir()
    host_space.file("tests/live/smoke.toml").write_text(SMOKE)
    shutil.copy(ROOT / "tests/live/panic.toml", host_space.file("tests/live"))
    # the modelled time of a busy machine's process is real
    text = host_space.file("deploy.toml").read_text()
    host_space.file("deploy.toml").write_text(text + "\n[livetest]\ntimeout_ms = 60000\n")
    return host_space


@pytest.mark.long
def test_the_same_files_on_the_host_and_on_the_board(live_space: Space) -> None:
    """Cold, warm, failed: what each run does is counted."""
    space = live_space
    cold = space.doit("all", "--update-baseline", "--junit", "live.xml")
    assert cold.code == 0, cold.out + cold.err
    assert "unit tests: 4 passed, 4 of them run now" in cold.out
    assert "live tests on host: 2 passed" in cold.out and "live tests on bench: 2 passed" in cold.out
    observed = json.loads(space.file("tests/live/baselines.json").read_text())["chips"]
    assert set(observed) == {"esp32c3", "host"} and set(observed["host"]) == {"smoke: health.heap.free"}
    suites = [suite.attrib for suite in ElementTree.parse(space.file("live.xml")).getroot()]
    assert [suite["name"] for suite in suites] == ["deploy bench", "unit host", "live host", "live bench"]
    assert [suite["failures"] + suite["errors"] for suite in suites] == ["00"] * 4

    warm = space.doit("host")
    assert warm.out == "-- host:build\n-- host:unit\n-- host:live\n", warm.out + warm.err

    space.file("tests/live/wrong.toml").write_text(WRONG)
    space.file("tests/live/test_ping.py").write_text("def test_ping(rpc):\n    assert rpc('ping') == 'pung'\n")
    failed = space.doit("livetest", "--junit", "live.xml")
    assert failed.code == 1
    assert 'tests/live/wrong.toml:1: error: `ping` answered "pong"; expected "pang"' in failed.out
    assert "FAIL test_ping::test_ping (bench)" in failed.out and "assert 'pong' == 'pung'" in failed.out
    assert "live tests on bench: error: 2 of 4 failed: wrong, test_ping::test_ping" in failed.err
    assert failed.outcome == "verified_unchanged", "the deploy is what it was"
    assert failed.totals["unknown_failures"] == 0 and failed.totals["bytes_written"] == 0
    live = ElementTree.parse(space.file("live.xml")).getroot()[1]
    assert (live.get("name"), live.get("tests"), live.get("failures")) == ("live bench", "4", "2")
    shutil.copytree(space.path, space.path.with_name("broken"))
    check_pages(space.path)
    check_what_breaks(Space(space.path.with_name("broken")))


def check_pages(root: Path) -> None:
    project = load_project(Options(), root)
    assert isinstance(project, Project)
    assert isinstance(status_text(project, "", ""), str)
    page = (root / "reports/status/live-results.md").read_text()
    assert "## Live tests: esp32c3" in page and "## Live tests: host" in page
    assert re.search(r"\| `smoke` +\| pass ", page) and re.search(r"\| `wrong` +\| FAIL ", page), page
    assert "tests/live/wrong.toml:1: error: " in page
    index = (root / "reports/status/index.md").read_text()
    assert "4 passed" in index and "FAIL 2 of 4" in index, "the unit tests of `doit host`, and the live tests"


def host(space: Space, *names: str) -> tuple[Failure | None, str]:
    """What `doit host:NAME...` does, in this process: its failure and what it says."""
    project = load_project(Options(), space.path)
    assert isinstance(project, Project), project
    said: list[str] = []
    build = Build(project)
    loop = HostLoop(build, said.append, lambda suite: None)
    failure = None
    for name in names:
        if failure is None and not loop.is_up_to_date(name, LiveOptions()):
            said.append(f".  {name}")
            failure = loop.perform(name, LiveOptions())
    loop.close()
    build.close()
    return failure, "\n".join(said)


def check_what_breaks(space: Space) -> None:
    """Each failure says where it is; what did not move is not done again."""
    for name in ("wrong.toml", "test_ping.py", "panic.toml"):
        space.file(f"tests/live/{name}").unlink()
    source = space.file("firmware/core/text.c")
    source.write_text(source.read_text() + "/* nothing */\n")
    failure, said = host(space, "build", "unit", "live")
    assert failure is None and "compiled=1, linked=0, restored=0" in said, "another source, the same programs"
    assert ".  unit" not in said and "live tests on host: 1 passed" in said, said

    baseline = {"schema": 1, "chips": {"host": {"smoke: health.heap.free": [1, 2]}}}
    space.file("tests/live/baselines.json").write_text(json.dumps(baseline))
    failure, said = host(space, "build", "unit", "live")
    assert failure is not None and failure.category is FailureCategory.TEST_FAILED
    assert ".  build" not in said and "more than 2, as it always was on host until now" in said

    space.edit("tests/firmware_c/test_modules.c", "heap_held(SAMPLER) == 32", "heap_held(SAMPLER) == 33")
    failure, said = host(space, "build", "unit", "live")
    assert failure is not None and failure.line() == "unit tests on host: error: 1 of 4 failed: test_modules"
    assert re.search(r"tests/firmware_c/test_modules.c:\d+: error: heap_held\(SAMPLER\) == 33", said)
    assert "3 passed, 1 of them run now" in said and ".  live" not in said

    source.write_text(source.read_text() + "nonsense\n")
    failure, _ = host(space, "build")
    assert failure is not None and failure.category is FailureCategory.COMPILE_ERROR
    assert failure.where.startswith("firmware/core/text.c:")
    space.file("tests/live/smoke.toml").write_text("stepp = 1\n")
    failure, _ = host(space, "live")
    assert failure is not None and failure.where == "tests/live/smoke.toml:1:1"
    text = space.file("deploy.toml").read_text()
    space.file("deploy.toml").write_text(re.sub(r"\[host\]\n(?:.+\n)+", "", text))
    failure, _ = host(space, "build")
    assert failure is not None and "there is no [host]" in failure.message and failure.hint.startswith("add [host]")


# --- the plugin, in a user's project -----------------------------------------------------------

HARDWARE = '''"""A user's own tests."""
import re
import pytest

def test_rpc(rpc, hotplate_device):
    assert rpc("ping", timeout_s=60) == "pong"
    assert (hotplate_device.name, hotplate_device.chip) == ("bench", "esp32c3")

def test_deploy(deploy, device):
    assert deploy.outcome in ("full_flashed", "verified_unchanged")
    assert len(deploy.app_elf_sha256) == 64
    print("OUTCOME", deploy.outcome, deploy.report["totals"]["bytes_written"])

def test_monitor(monitor):
    assert monitor.expect(re.compile(r"(?P<name>\\w+) enabled"), timeout_s=60).groups["name"] == "blink"
    monitor.reset()
    monitor.expect('"method":"ready"', timeout_s=60)

@pytest.mark.hotplate(panic=True)
def test_panic(monitor):
    monitor.expect('"method":"ready"', timeout_s=60)
    monitor.send('{"jsonrpc":"2.0","method":"panic"}')
    monitor.expect("Guru Meditation", timeout_s=60)
    assert any("run_panic at firmware" in line for line in monitor.panic) or not monitor.panic
'''
BROKEN = """import pytest

def test_refused(rpc):
    rpc("no.such.method", timeout_s=60)

def test_panics(monitor):
    monitor.expect('"method":"ready"', timeout_s=60)
    monitor.send('{"jsonrpc":"2.0","method":"panic"}')
    with pytest.raises(AssertionError, match="before the firmware panicked"):
        monitor.expect("never", timeout_s=3600)
"""


def run_pytest(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=cwd,
        env=environment(XDG_CACHE_HOME=str(cwd / ".deploy/user-cache"), XDG_STATE_HOME=str(cwd / ".deploy/user-state")),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def outcomes(space: Space) -> list[str]:
    rows = space.file("reports/history.jsonl").read_text().splitlines()
    return [json.loads(row)["outcome"] for row in rows]


@pytest.mark.long
def test_a_users_own_hardware_tests(host_space: Space, start_board: Callable[..., ServedBoard]) -> None:
    """On a board process behind RFC 2217: its time is real, and its port has room for one."""
    space = host_space
    space.on_process(start_board().url)
    space.file("deploy.toml").write_text(f"{space.file('deploy.toml').read_text()}\n[livetest]\ntimeout_ms = 60000\n")
    space.file("tests/live").mkdir(parents=True)
    space.file("tests/live/smoke.toml").write_text(SMOKE)
    space.file("tests/live/test_board.py").write_text(HARDWARE)
    # workers share the device by its lease
    first = run_pytest(space.path, "-W", "error", "--strict-markers", "-n", "2", "--device", "bench", "tests/live")
    assert first.returncode == 0 and "5 passed" in first.stdout, first.stdout + first.stderr
    done = outcomes(space)
    assert done[0] == "full_flashed"
    assert set(done[1:]) <= {"verified_unchanged"}, "the flash is skipped where verify says so"

    space.file("tests/live/test_board.py").write_text(BROKEN)
    broken = run_pytest(space.path, "-n", "0", "--hotplate-device=bench", "tests/live")
    assert broken.returncode == 1 and "1 failed, 2 passed, 1 error" in broken.stdout, broken.stdout
    assert "`no.such.method` was refused with -32601" in broken.stdout
    assert "what bench said" in broken.stdout and "the firmware panicked" in broken.stdout
    assert outcomes(space)[len(done) :] == ["verified_unchanged"], "one deploy serves all tests of a process"
    with pytest.raises(Unusable, match=r"deploy\.toml has no device 'nobody'"):
        open_devices(space.path, DeviceChoice(("nobody",)), lease_s=1.0, deploys=True)


def test_a_run_in_any_other_project_is_left_alone(tmp_path: Path) -> None:
    """Its modules may be called as ours are, its options and fixtures too; nothing is imported and nothing warns."""
    (tmp_path / "cache.py").write_text("MINE = True\n")
    (tmp_path / "pipeline.py").write_text("MINE = True\n")
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "def pytest_addoption(parser):\n    parser.addoption('--device', default='mine')\n"
        "    parser.addoption('--group', default='mine')\n"
        "@pytest.fixture\ndef device(request):\n    return request.config.option.device\n"
    )
    (tmp_path / "data.toml").write_text("not = 'a scenario'\n")
    (tmp_path / "test_mine.py").write_text(
        "import sys\nimport cache, pipeline\n"
        "def test_mine(device):\n    assert (cache.MINE, pipeline.MINE, device) == (True, True, 'yours')\n"
        "def test_nothing_of_hotplate():\n"
        "    assert not [m for m in sys.modules if m.startswith(('pipeline.', 'virtualboard', 'esptool'))]\n"
    )
    env = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-config", "-n", "0", "--device", "yours"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_options_that_another_plugin_has_stay_its_own(tmp_path: Path) -> None:
    """In a Hotplate project too: ours are then reached by their long names. Devices are used on request, where the
    project says so."""
    shutil.copy(ROOT / "deploy.toml", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nhotplate_on_request = true\n")
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--device', default='mine')\n"
    )
    (tmp_path / "test_mine.py").write_text(
        "def test_mine(request):\n"
        "    said = request.config.option\n"
        "    assert (said.device, said.hotplate_device, said.hotplate_group) == ('x', [], [])\n"
        "def test_board(rpc):\n    assert rpc('ping') == 'pong'\n"
    )
    done = run_pytest(tmp_path, "-n", "0", "--device", "x")
    assert done.returncode == 0 and "1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr

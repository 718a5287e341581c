"""What users and their machines do to a run, and what must be said about it in a line instead of a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.fastpath.handover import PLACES
from tests import given_project
from tests.e2e.space import ROOT, Space, environment

TIMEOUT_S = 300


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Space:
    root = tmp_path_factory.mktemp("given") / "project"
    return given_project.with_web(given_project.project(root, "esp32c3", given_project.files))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH with the entry points that this checkout declares: those of the installation may be older."""
    return site(tmp_path_factory, declared())


@pytest.fixture(scope="module")
def doits_own(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same without those that stand in place of doit's own commands."""
    return site(tmp_path_factory, {name: where for name, where in declared().items() if name not in PLACES})


def site(tmp_path_factory: pytest.TempPathFactory, commands: dict[str, str]) -> str:
    place = tmp_path_factory.mktemp("site") / "hotplate-0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: hotplate\nVersion: 0\n")
    lines = [f"{name} = {where}" for name, where in commands.items()]
    (place / "entry_points.txt").write_text("\n".join(["[doit.COMMAND]", *lines, ""]))
    return f"{place.parent}{os.pathsep}{ROOT}"


def declared() -> dict[str, str]:
    """Command -> where, as pyproject.toml has it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["project"]["entry-points"]["doit.COMMAND"])


def shell(space: Space, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`line` in sh, with `doit` and `hotplate` of this checkout."""
    names = f'doit() {{ {sys.executable} -m doit "$@"; }}\nhotplate() {{ {sys.executable} -c "{HOTPLATE}" "$@"; }}\n'
    done = subprocess.run(
        ["/bin/sh", "-c", names + line],
        cwd=space.path,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr and "this is a bug" not in done.stderr, done
    return done


HOTPLATE = "import sys; from pipeline.fastpath import main; sys.exit(main())"

KEYS = {
    "project.name": ('name = "given"', 'name = "gi\\u0000ven"'),
    "prebuilt.files": ("bin/a.bin", "bin/a\\u0000.bin"),
    "action.0.argv": ("tools/pack.py", "tools/\\u0000"),
    "action.0.inputs": ("web/*.html", "web/\\u0000*"),
    "action.0.outputs": ('outputs = ["build/web.bin"]', 'outputs = ["build/\\u0000"]'),
    "device.bench.port": ('port = "virtual:"', 'port = "/dev/tty\\u0000"'),
    "readiness.until": ("line:^entry 0x", "line:\\u0000"),
    "image.web.partition": ("storage", "stor\\u0000age"),
    "reports.dir": ("[readiness]", '[reports]\ndir = "a\\u0000b"\n[readiness]'),
    "cache.dir": ("[readiness]", '[cache]\ndir = "a\\u0000b"\n[readiness]'),
    "action.0.env": ("outputs = ", 'env = ["A=\\u0000"]\noutputs = '),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_nul_in_a_value_is_refused_before_anything_is_done(project: Space, key: str) -> None:
    config = project.file("deploy.toml")
    text = config.read_text()
    config.write_text(text.replace(*KEYS[key], 1))
    try:
        done = shell(project, "doit deploy")
    finally:
        config.write_text(text)
    assert done.returncode == 2 and f"error: '{key}' holds a NUL character" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", ">/dev/full"])
@pytest.mark.parametrize("command", ["doit link", "hotplate link", "doit deploy", "doit list", "doit plan"])
def test_a_closed_stream(project: Space, installed: str, closed: str, command: str) -> None:
    done = shell(project, f"{command} {closed}", PYTHONPATH=installed)
    is_view = command in ("doit plan", "doit list")
    assert done.returncode == (1 if is_view and closed == ">/dev/full" else 0), done


@pytest.mark.parametrize(
    ("command", "code", "fact"),
    [
        ("doit deploy --devce bench", 3, "--devce: error: is no option here; did you mean '--device'?"),
        ("hotplate deploy --devce bench", 3, "--devce: error: is no option here; did you mean '--device'?"),
        ("doit baseline:warm --runs x", 3, "--runs: error: is 'x', but must be a whole number"),
        ("hotplate deploy --trace ''", 3, "hotplate: error: a word of the command line is empty"),
        ("doit livetest -k '('", 2, "-k: error: '(' cannot be read: a word is missing at its end"),
        ("doit livetest --marks 'a and'", 2, "-m: error: 'a and' cannot be read: a word is missing at its end"),
    ],
)
def test_bad_usage_is_a_line_and_a_hint_before_anything_is_done(
    project: Space, command: str, code: int, fact: str
) -> None:
    before = sorted(project.path.glob("reports/tx-*"))
    done = shell(project, command)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 2, done
    first, second = done.stderr.splitlines()
    assert first == fact and second.startswith("hint: ")
    assert sorted(project.path.glob("reports/tx-*")) == before


@pytest.mark.parametrize(
    ("port", "fact"),
    [
        ("MISSING", "MISSING: error: no such port (present: "),
        ("/dev/null", "/dev/null: error: that is no serial port"),
        ("ftp://x", "--port: error: is 'ftp://x', and 'ftp://' is no kind of port"),
        ("virtual:?x", "--port: error: 'virtual:?x' is a board that comes to be when it is named"),
    ],
)
def test_a_port_that_somebody_names_has_to_answer(project: Space, port: str, fact: str) -> None:
    before = project.file("deploy.toml").read_text()
    done = shell(project, f"doit devices:discover --port {port} --port virtual:")
    assert done.returncode == 1, done
    note, first, second = done.stderr.splitlines()
    assert note == "note: virtual: was not asked: it is the port of device bench"
    assert first.startswith(fact) and second.startswith("hint: ")
    assert project.file("deploy.toml").read_text() == before


WORDS = [
    ("-x", 3, "-x: error: is no option here", "use one of --db-file, "),
    ("--device bench", 3, "--device: error: is an option of tasks, and stands before any", "write the task first: "),
    ("--json", 3, "--json: error: is an option of tasks, and stands before any", "write the task first: "),
    ("-n x link", 3, "--process: error: is 'x', but must be a whole number", "write it like --process=5"),
    ("-r table link", 3, "--reporter: error: is 'table'", "use one of "),
    ("list -x", 3, "-x: error: is no option here", "use one of --db-file, "),
    ("depoy", 3, "depoy: error: is no command, task or target; did you mean 'deploy'?", "see `"),
    ("moniter", 3, "moniter: error: is no command, task or target; did you mean 'monitor'?", "see `"),
    ("clean lnik", 3, "lnik: error: is no task; did you mean 'link'?", "see `"),
    ("info lnik", 3, "lnik: error: is no task; did you mean 'link'?", "see `"),
    ("help depoy", 3, "depoy: error: is no command or task; did you mean 'deploy'?", "see `"),
    ("forget lnik", 3, "lnik: error: is no task; did you mean 'link'?", "see `"),
    (
        "reflash:bench:",
        3,
        "reflash:bench:: error: is no command, task or target; did you mean 'reflash:bench'?",
        "see `",
    ),
    ("list lnik", 3, "lnik: error: is no task; did you mean 'link'?", "see `"),
    ("-f other.py list", 3, "other.py: error: there is none in this directory", "change into the directory of "),
    ("help >/dev/full", 1, "stdout: error: cannot be written: No space left on device", "free disk space"),
    ("info link >/dev/full", 1, "stdout: error: cannot be written: No space left on device", "free disk space"),
    ("tabcompletion >/dev/full", 1, "stdout: error: cannot be written: No space left on device", "free disk space"),
]


@pytest.mark.parametrize("program", ["doit", "hotplate"])
@pytest.mark.parametrize(("words", "code", "fact", "hint"), WORDS)
def test_what_doit_refuses_is_a_line_and_a_hint(
    project: Space, installed: str, program: str, words: str, code: int, fact: str, hint: str
) -> None:
    done = shell(project, f"{program} {words}", PYTHONPATH=installed, PYTHONUNBUFFERED="1" if code == 1 else "")
    assert (done.returncode, done.stdout) == (code, "")
    first, second = done.stderr.splitlines()
    assert first == fact and second.startswith(f"hint: {hint}")


@pytest.mark.parametrize("program", ["doit", "hotplate"])
@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("deploy --help", "deploy  from C source to the first JSON-RPC byte of the running device (the default)"),
        ("link -h", "link  link, make the flash images and check that they fit"),
        ("devices:discover --help", "devices:discover  ask every port behind which a board may be"),
        ("monitor --help", "PURPOSE"),
        ("plan -h", "PURPOSE"),
        ("run --help", "PURPOSE"),
        ("list --help", "PURPOSE"),
    ],
)
def test_who_asks_for_help_gets_it(project: Space, installed: str, program: str, words: str, first: str) -> None:
    """As `doit help` gives it, without anything being done."""
    before = sorted(project.path.glob(".deploy/runs/*"))
    done = shell(project, f"{program} {words}", PYTHONPATH=installed)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.startswith(first)
    assert done.stdout == shell(project, f"{program} help {words.split(maxsplit=1)[0]}", PYTHONPATH=installed).stdout
    assert sorted(project.path.glob(".deploy/runs/*")) == before


def test_help_builds_no_given_firmware(tmp_path: Path) -> None:
    """A command of [prebuilt] runs before the tasks are known."""
    space = given_project.project(tmp_path / "project", "esp32c3", given_project.esp_idf)
    space.edit("deploy.toml", "[prebuilt]", '[prebuilt]\nbuild = ["touch", "built"]')
    assert shell(space, "doit deploy --help").returncode == 0
    assert not space.file("built").exists()
    assert shell(space, "doit link").returncode == 0
    assert space.file("built").exists()


def test_a_json_stream_whose_reader_goes_away(project: Space) -> None:
    done = shell(project, "{ doit link --json; echo $? >&2; } | head -c 1")
    assert done.stderr.endswith("note: --json: the reader went away (Broken pipe)\n0\n"), done
    full = shell(project, "doit link --json >/dev/full")
    assert full.returncode == 0 and full.stderr.endswith("--json: stdout cannot be written (No space left on device)\n")


@pytest.mark.parametrize("words", ["--trace .", "--junit bin", "--device=", "--device"])
def test_a_value_that_is_none_is_told_before_anything_is_done(project: Space, words: str) -> None:
    before = sorted(project.path.glob(".deploy/runs/*"))
    done = shell(project, f"doit deploy {words}")
    option = words.partition(" ")[0].rstrip("=")
    assert done.returncode == 2 and done.stdout == "", done
    assert done.stderr.splitlines()[0].split(" error: ")[0] == f"{option}:"
    assert sorted(project.path.glob(".deploy/runs/*")) == before


@pytest.mark.parametrize("option", ["--device", "--group", "--profile"])
def test_a_watch_of_what_there_is_not(project: Space, option: str) -> None:
    """It would wait for a save that makes it right, without saying what is wrong."""
    done = shell(project, f"doit watch {option} nosuch")
    assert done.returncode == 2 and done.stdout == "", done
    assert done.stderr.startswith(f"{option}: error: deploy.toml has no {option[2:]} 'nosuch'")


@pytest.mark.parametrize("words", ["--help", "--version", "list"])
def test_hotplate_says_that_its_answer_is_lost(project: Space, words: str) -> None:
    done = shell(project, f"hotplate {words} >/dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 1 and done.stderr.startswith("stdout: error: cannot be written: "), done


@pytest.mark.parametrize("words", ["list", "list --all --status", "help", "help list", "help link", "info link"])
def test_what_doit_answers_is_what_doit_alone_would(project: Space, installed: str, doits_own: str, words: str) -> None:
    ours, theirs = (shell(project, f"doit {words}", PYTHONPATH=path) for path in (installed, doits_own))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stdout


@pytest.mark.parametrize("words", ["list", "hello", "nosuch", "list -x", "-x", "clean", "info hello"])
def test_another_project_of_doits_keeps_its_modules(tmp_path: Path, installed: str, doits_own: str, words: str) -> None:
    """It may have some with our names."""
    for name in ("pipeline", "cache"):
        (tmp_path / f"{name}.py").write_text(f"WORD = 'own {name}'\n")
    lines = ["import cache, pipeline", "", "", "def task_hello():", '    """say it"""']
    (tmp_path / "dodo.py").write_text(
        "\n".join([*lines, "    return {'actions': [f'echo {cache.WORD} {pipeline.WORD}'], 'verbosity': 2}", ""])
    )
    other = Space(tmp_path)
    ours, theirs = (
        shell(other, f"doit {words}", PYTHONPATH=f"{tmp_path}{os.pathsep}{path}") for path in (installed, doits_own)
    )
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr.replace("{'", "").splitlines()[:1] == theirs.stderr.replace("{'", "").splitlines()[:1]
    assert "own cache own pipeline" in ours.stdout or words != "hello"


def test_doit_and_hotplate_take_the_same_commands() -> None:
    assert {name: where for name, where in declared().items() if name in PLACES} == PLACES


VIEWS = ["doit doctor", "doit doctor --json", "doit monitor --seconds 1", "hotplate monitor --seconds 1"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [*VIEWS, "hotplate cc --stats", "doit plan", "doit report"])
def test_a_view_that_cannot_be_written(project: Space, command: str) -> None:
    done = shell(project, f"{command} >/dev/full")
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-2:] == [
        "stdout: error: cannot be written: No space left on device",
        "hint: free disk space",
    ]


@pytest.mark.parametrize("name", ["json", "executed-only", "zero", "error-only"])
def test_other_reporters(project: Space, name: str) -> None:
    """What they show is theirs; the run is recorded all the same (`test_runs.py`)."""
    assert shell(project, f"doit -r {name} link").returncode == 0
    assert "Traceback" not in shell(project, f"doit -r {name} verify-flash").stderr


@pytest.mark.parametrize("year", ["2500", "1900"])
def test_files_of_another_century(project: Space, year: str) -> None:
    shell(project, "doit link")
    touch = f"touch -d {year}-06-01 web/a.html bin/a.bin deploy.toml dodo.py build/web.bin"
    assert shell(project, f"{touch} && doit link && hotplate link").returncode == 0
    assert shell(project, "touch web/a.html bin/a.bin deploy.toml dodo.py && doit link").returncode == 0


CSV = ["clean", "loop", "baseline:warm", "hooks:install --editor vscode", "link", "plan", "explain", "graph", "list"]


@pytest.mark.parametrize("damage", ["missing", "binary", "fifo"])
def test_a_table_that_cannot_be_read(tmp_path: Path, damage: str) -> None:
    (tmp_path / "dodo.py").write_text(given_project.DODO)
    (tmp_path / "a.c").write_text("int a;\n")
    (tmp_path / "deploy.toml").write_text(
        '[project]\nname = "t"\nsources = ["a.c"]\nprofile = "p"\n[toolchain]\nkind = "gcc"\nchip = "esp32c3"\n'
        'linker_script = "a.ld"\n[profile.p]\n[partitions]\ntable = "p.csv"\n[device.bench]\nport = "virtual:"\n'
    )
    if damage == "binary":
        (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00" * 99)
    if damage == "fifo":
        os.mkfifo(tmp_path / "p.csv")
    space = Space(tmp_path)
    for words in CSV if damage == "missing" else CSV[:1]:
        done = shell(space, f"doit {words}")
        assert done.returncode in (0, 1, 2), done
        assert words == "list" or "p.csv" in done.stderr or "error: " in done.stderr, done


INTERRUPTED = """
import importlib.abc, os, signal, sys
WANTED, HOW = sys.argv[1:]
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == WANTED:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv[:] = ["doit", "link"]
if HOW == "hotplate":
    from pipeline.fastpath import main
    main()
else:
    from doit.doit_cmd import DoitMain
    sys.path.insert(0, "")
    assert DoitMain().run(["link"]) == 0
"""


@pytest.mark.parametrize("how", ["doit", "hotplate"])
@pytest.mark.parametrize("module", ["pipeline.cli.reporter", "pipeline.run.project", "pipeline.run.options"])
def test_an_interrupt_while_modules_are_imported_is_quiet(project: Space, module: str, how: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, module, how]
    project.file("web/a.html").write_text(f"<{module}{how}>")
    done = subprocess.run(
        command, cwd=project.path, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_an_ignored_interrupt_stays_ignored(project: Space) -> None:
    code = (
        f"import signal; signal.signal(2, signal.SIG_IGN)\n{INTERRUPTED}\nassert signal.getsignal(2) == signal.SIG_IGN"
    )
    command = [sys.executable, "-c", code, "pipeline.run.project", "doit"]
    done = subprocess.run(
        command, cwd=project.path, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("flash", ["/dev/null", "/dev/zero", ".", "fifo"])
def test_a_virtual_board_on_what_is_no_file(tmp_path: Path, flash: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = [sys.executable, "-m", "virtualboard", "--chip", "esp32c3", "--tcp", "0", "--flash", flash]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode in (1, 2) and f"{flash}: error: " in done.stderr and "Traceback" not in done.stderr

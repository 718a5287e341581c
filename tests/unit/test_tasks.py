"""What `pipeline.tasks` is to whoever imports it: only `import *` in a dodo.py of doit's may end the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.space import environment

ANSWERS = "import sys, pipeline.fastpath as f; f.answer_and_end = lambda: print('asked'); sys.argv = {argv}; "


def said(tmp_path: Path, argv: list[str], statement: str) -> str:
    code = f"{ANSWERS.format(argv=argv)}exec({statement!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("program", ["doit", "/somewhere/bin/doit", "/somewhere/doit/__main__.py"])
def test_the_fast_path_is_asked_when_a_dodo_takes_the_tasks_over(tmp_path: Path, program: str) -> None:
    assert said(tmp_path, [program, "compile"], "from pipeline.tasks import *; assert task_compile") == "asked\n"


@pytest.mark.parametrize(
    ("program", "statement"),
    [
        ("doit", "import pipeline.tasks"),
        ("doit", "from pipeline import tasks; assert tasks.task_link and tasks.DOIT_CONFIG"),
        ("doit", "from pipeline.tasks import DOIT_CONFIG, task_deploy"),
        ("hotplate", "from pipeline.tasks import *"),
        ("pytest", "from pipeline.tasks import *"),
    ],
)
def test_it_is_asked_by_nothing_else(tmp_path: Path, program: str, statement: str) -> None:
    assert said(tmp_path, [program, "compile"], statement) == ""


def test_what_a_dodo_gets() -> None:
    import pipeline.tasks

    names = pipeline.tasks.__all__
    stages = ["fingerprint", "compile", "link", "verify_flash", "reflash", "reattach", "ttfb", "deploy"]
    groups = [
        "baseline",
        "loop",
        "bench",
        "cache",
        "check",
        "discover",
        "ota",
        "recover",
        "hooks",
        "livetest",
        "host",
        "all",
    ]
    assert names == ["DOIT_CONFIG", *(f"task_{name}" for name in (*stages, *groups))]
    with pytest.raises(AttributeError, match="no attribute 'task_nothing'"):
        _ = pipeline.tasks.task_nothing

"""Real editors with what `doit hooks:install` wrote: an error is introduced, saved, and must stand in the editor's own
list. Skipped, visibly, where an editor is not installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cache.stamps import next_tick
from tests.e2e.space import environment
from tests.e2e.test_fastpath import NOTHING, FastPathProject
from tests.e2e.test_watch import unit, with_failing_compiler

TIMEOUT_S = 300
# The one of the locked environment knows zig's headers; an older one of the system may not.
CLANGD = shutil.which("clangd", path=str(Path(sys.executable).parent)) or shutil.which("clangd")


@pytest.fixture
def project(tmp_path: Path) -> FastPathProject:
    """Built once; `hotplate` is a program of the fake environment."""
    project = with_failing_compiler(FastPathProject(tmp_path))
    project.out("doit", "compile", "link")
    return project


def install(project: FastPathProject, editor: str) -> None:
    out = project.out("doit", "hooks:install", "--editor", editor)
    assert "compile_commands.json: written" in out


def edit_environment(project: FastPathProject, home: Path) -> dict[str, str]:
    """An editor of somebody who has configured nothing."""
    home.mkdir()
    keep = {"PYTHONPATH": project.env["PYTHONPATH"], "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    env = environment(**keep, XDG_DATA_HOME=str(home / "data"), XDG_STATE_HOME=str(home / "state"), TERM="dumb")
    return {name: value for name, value in env.items() if not name.startswith(("NVIM", "VIM", "EMACS"))}


@pytest.mark.skipif(shutil.which("nvim") is None, reason="Neovim is not installed")
def test_neovim_fills_its_quickfix_list(project: FastPathProject, tmp_path: Path) -> None:
    """Twice: an error gives one entry at its place, and saving the repair empties the list again."""
    install(project, "neovim")
    env = edit_environment(project, tmp_path / "home")
    (tmp_path / "home/config/nvim").mkdir(parents=True)
    (tmp_path / "home/config/nvim/init.vim").write_text("set exrc\n")
    script = tmp_path / "drive.lua"
    script.write_text(
        """
local function saved(text, wanted)
  vim.api.nvim_buf_set_lines(0, 0, -1, false, { text })
  vim.cmd('silent write')
  local done = vim.wait(60000, function()
    return vim.fn.getqflist({ title = 1 }).title == 'hotplate' and #vim.fn.getqflist() == wanted
  end, 10)
  local items = {}
  for _, item in ipairs(vim.fn.getqflist()) do
    table.insert(items, { vim.fn.bufname(item.bufnr), item.lnum, item.col, item.type, item.text })
  end
  return { done = done, items = items }
end
local results = { saved('BROKEN', 1), saved('int repaired;', 0) }
vim.fn.writefile({ vim.fn.json_encode(results) }, OUT)
vim.cmd('qall!')
""".replace("OUT", json.dumps(str(tmp_path / "results.json")))
    )
    source = unit(project, 1).relative_to(project.root)
    done = subprocess.run(
        ["nvim", "--headless", str(source), "-c", f"luafile {script}"],
        cwd=project.root, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (tmp_path / "results.json").exists(), done.stdout + done.stderr
    broken, repaired = json.loads((tmp_path / "results.json").read_text())
    assert broken["done"], done.stderr
    ((name, line, column, kind, text),) = broken["items"]
    assert Path(project.root, name) == project.root / source
    assert (line, column, kind, text) == (1, 2, "E", "it is broken")
    assert repaired == {"done": True, "items": repaired["items"]} and not repaired["items"]


@pytest.mark.skipif(shutil.which("emacs") is None, reason="Emacs is not installed")
def test_emacs_lists_the_error(project: FastPathProject, tmp_path: Path) -> None:
    """`next-error` from the compilation buffer leads to the line; the user has accepted the local variables once."""
    install(project, "emacs")
    env = edit_environment(project, tmp_path / "home")
    source, out = unit(project, 1), tmp_path / "results.json"
    script = tmp_path / "drive.el"
    script.write_text(
        f"""
(require 'compile)
(setq enable-local-variables :all enable-local-eval t make-backup-files nil create-lockfiles nil)
(setq finished nil)
(add-hook 'compilation-finish-functions (lambda (_buffer how) (setq finished how)))
(find-file {json.dumps(str(source))})
(erase-buffer)
(insert "BROKEN\\n")
(save-buffer)
(with-timeout (60 nil) (while (not finished) (accept-process-output nil 0.05)))
(setq next-error-last-buffer (get-buffer "*hotplate*"))
(let ((text (with-current-buffer "*hotplate*" (buffer-string))))
  (next-error 1)
  (let ((where (list (buffer-file-name) (line-number-at-pos) (current-column))))
    (with-temp-file {json.dumps(str(out))} (insert (json-encode (list finished where text))))))
"""
    )
    done = subprocess.run(
        ["emacs", "--batch", "-Q", "-l", "json", "-l", str(script)],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert out.exists(), done.stdout + done.stderr
    finished, (name, line, column), text = json.loads(out.read_text())
    assert finished.startswith("exited abnormally with code 1"), text
    assert Path(name) == source and (line, column) == (1, 1), text


def test_vscode_builds_for_every_input_and_for_nothing_else(project: FastPathProject) -> None:
    """The very command of the extension, after a save of an action's CSV file, of its script, and of a page that no
    build reads: the last is answered without a run."""
    (project.root / "pack.py").write_text("import sys; open(sys.argv[2], 'w').write(open(sys.argv[1]).read().upper())")
    (project.root / "table.csv").write_text("a,1\n")
    with (project.root / "deploy.toml").open("a") as config:
        config.write("""
[[action]]
name = "table"
argv = ["python", "pack.py", "table.csv", "{out}"]
outputs = ["build/table.txt"]
""")
    install(project, "vscode")
    settings = (project.root / ".vscode/settings.json").read_text()
    commands = json.loads(re.sub(r"//.*|/\\*.*?\\*/", "", settings))["emeraldwalk.runonsave"]["commands"]
    (hotplate,) = re.findall(r'&& "([^"]*)" compile link', commands[0]["cmd"])
    program = project.tools / "hotplate"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from pipeline.fastpath import main; main()' \"$@\"\n")
    program.chmod(0o755)

    def saved(name: str, text: str) -> str:
        (project.root / name).write_text(text)
        (command,) = (one["cmd"] for one in commands if re.search(one["match"], str(project.root / name)))
        command = command.replace("${workspaceFolder}", str(project.root)).replace(f'"{hotplate}"', f'"{program}"')
        next_tick()
        done = subprocess.run(command, shell=True, env=project.env, capture_output=True, text=True, check=True)
        return done.stdout

    product = project.root / "build/table.txt"
    project.settle()
    assert ".  compile" in saved("table.csv", "b,2\n") and product.read_text() == "B,2\n"
    assert ".  compile" in saved("pack.py", "import sys; open(sys.argv[2], 'w').write('from the script')")
    assert product.read_text() == "from the script"
    project.settle()
    runs = sorted((project.root / ".deploy/runs").iterdir())
    assert saved("notes.md", "what a build never reads") == NOTHING
    assert sorted((project.root / ".deploy/runs").iterdir()) == runs, "the fast path answered"


def test_builds_keep_the_database_up_to_date(project: FastPathProject) -> None:
    """A new source is in it before it compiles; nobody's database is made or touched."""
    path = project.root / "compile_commands.json"

    def listed() -> list[str]:
        return [Path(entry["file"]).name for entry in json.loads(path.read_text()) if "u0" in entry["file"]]

    install(project, "emacs")
    three = listed()
    new = unit(project, 7)
    new.write_text("BROKEN\n")
    assert project.run("hotplate", "compile", "link").returncode == 1
    assert listed() == [*three, "u00007.c"]
    written = path.stat().st_ino
    new.write_text("int repaired;\n")
    project.out("hotplate", "compile", "link")
    assert path.stat().st_ino == written, "the same actions"
    new.unlink()
    project.out("hotplate", "compile", "link")
    assert listed() == three
    path.write_text("[]")
    new.write_text("int again;\n")
    project.out("hotplate", "compile", "link")
    assert path.read_text() == "[]"
    path.unlink()
    new.unlink()
    project.out("hotplate", "compile", "link")
    assert not path.exists()


@pytest.mark.skipif(CLANGD is None, reason="clangd is not installed")
def test_clangd_understands_the_database(template: Path, tmp_path: Path) -> None:
    from tests.e2e.space import Space, copy_project

    copy_project(template, tmp_path / "project")
    space = Space(tmp_path / "project")
    assert CLANGD and space.doit("hooks:install", "--editor", "emacs").code == 0
    done = subprocess.run(
        [CLANGD, "--check=firmware/core/json.c"], cwd=space.path, capture_output=True, text=True, check=False,
        timeout=TIMEOUT_S, env=environment(HOME=os.environ["HOME"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "error:" not in done.stderr and "[" + "pp_file_not_found]" not in done.stderr

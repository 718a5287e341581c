"""What `doit hooks:*` write into users' files: merged with care, and out again to the byte."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.editor import hook_parts, hooks
from pipeline.formats import jsonc, marked_block, xml_block
from pipeline.formats.jsonc import CannotEdit


def loads(text: str) -> Any:
    """JSON with comments and trailing commas, as VS Code reads it; independent of the code under test."""
    text = re.sub(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', lambda m: m[1] or "", text, flags=re.DOTALL)
    text = re.sub(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', lambda m: m[1] or "", text)
    return json.loads(text.lstrip("\ufeff"))


def tasks_part(root: Path) -> hook_parts.HookPart:
    return hook_parts.parts_of("vscode", root)[0]


def settings_part(root: Path) -> hook_parts.HookPart:
    return hook_parts.parts_of("vscode", root)[1]


def all_parts(root: Path) -> list[hook_parts.HookPart]:
    top, git = root, root / ".git/hooks"
    editors = [part for editor in hook_parts.EDITORS for part in hook_parts.parts_of(editor, root)]
    return [*editors, hook_parts.clangd_part(root), hook_parts.git_part(root, top, git)]


# --- files that are not there -------------------------------------------------------------------


def test_new_files_are_made_and_removed(tmp_path: Path) -> None:
    for part in all_parts(tmp_path):
        assert hooks.uninstall(part).how == "absent"
        assert hooks.install(part).how == "written"
        before = part.path.read_bytes()
        assert hooks.install(part).how == "unchanged"
        assert part.path.read_bytes() == before
        assert hooks.uninstall(part).how == "removed"
        assert not part.path.exists()
        assert hooks.uninstall(part).how == "absent"
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


def test_an_empty_file_is_empty_again(tmp_path: Path) -> None:
    for part in all_parts(tmp_path):
        part.path.parent.mkdir(parents=True, exist_ok=True)
        part.path.touch()
        assert hooks.install(part).how == "written"
        assert hooks.uninstall(part).how == "removed"
        assert part.path.read_bytes() == b""


def test_vscode_reads_what_is_written(tmp_path: Path) -> None:
    for part in hook_parts.parts_of("vscode", tmp_path):
        hooks.install(part)
    tasks = loads((tmp_path / ".vscode/tasks.json").read_text())
    assert tasks["version"] == "2.0.0"
    watch = tasks["tasks"][0]
    assert watch["isBackground"] and watch["args"] == ["watch"]
    background = watch["problemMatcher"]["background"]
    assert re.search(background["beginsPattern"], "[watch] build started")
    assert re.search(background["endsPattern"], "[watch] build finished")
    pattern = watch["problemMatcher"]["pattern"]
    found = re.match(pattern["regexp"], "src/a.c:3:13: error: expected ')'")
    assert found is not None
    assert [found[pattern[k]] for k in ("file", "line", "column", "severity", "message")] == [
        "src/a.c", "3", "13", "error", "expected ')'",
    ]  # fmt: skip
    (command,) = loads((tmp_path / ".vscode/settings.json").read_text())["emeraldwalk.runonsave"]["commands"]
    for path in ("/p/src/a.c", "/p/deploy.toml", "/p/assets/table.csv", "/p/tools/pack.py", "/home/x/build/p/src/a.c"):
        assert re.search(command["match"], path) and "notMatch" not in command


# --- files of users -----------------------------------------------------------------------------

TASKS = """\
{
\t// what we use
\t"version": "2.0.0",
\t"tasks": [ // ours
\t\t{ "label": "lint", "command": "make", /* always */ "args": ["lint",] },
\t],
}
"""

TEXTS = [
    TASKS,
    TASKS.replace("\n", "\r\n"),
    "\ufeff" + TASKS,
    '{"tasks":[]}',
    '{"tasks":[\n]\n}',
    '{"tasks":[],"inputs":[{"id":"}]//"}]}',
    "{}",
    "{\n}\n",
    '{"version": "2.0.0"}',
    '// top\n{ "version": "2.0.0", /* none yet */ }\n// end',
    '{\n  "tasks": [\n    {"label": "a"},\n    {"label": "b"}\n  ]\n}',
]


@pytest.mark.parametrize("text", TEXTS)
def test_tasks_merge_and_come_out_again(tmp_path: Path, text: str) -> None:
    part = tasks_part(tmp_path)
    part.path.parent.mkdir()
    part.path.write_bytes(text.encode())
    part.path.chmod(0o640)
    labels = [task["label"] for task in loads(text).get("tasks", [])]
    assert hooks.install(part).how == "written"
    merged = part.path.read_bytes().decode()
    assert [task["label"] for task in loads(merged)["tasks"]] == [
        "hotplate: watch",
        "hotplate: build",
        "hotplate: deploy",
        *labels,
    ]
    assert all(comment in merged for comment in re.findall(r"/\*.*?\*/|// \w+", text))
    assert hooks.install(part).how == "unchanged"
    assert hooks.uninstall(part).how == "removed"
    assert part.path.read_bytes() == text.encode()
    assert part.path.stat().st_mode & 0o777 == 0o640


MINE = '{ "label": "mine" }'


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("where", ["before", "after", "key"])
def test_a_user_may_edit_around_the_block(tmp_path: Path, text: str, where: str) -> None:
    """What somebody adds stays, the rest comes out, and what is left can be read."""
    part = tasks_part(tmp_path)
    merged = part.put_in(text)
    start, stop = merged.index(jsonc.BEGIN), merged.index(jsonc.END) + len(jsonc.END)
    inside_tasks = '"tasks"' in text
    if where == "key":
        brace = merged.index("{")
        edited = f'{merged[: brace + 1]}"mine": 1,{merged[brace + 1 :]}'
    elif not inside_tasks:
        pytest.skip("the whole of tasks is ours")
    elif where == "before":
        edited = f"{merged[:start]}{MINE},\n{merged[start:]}"
    else:
        comma = "" if merged[start:stop].rstrip(jsonc.END).rstrip().endswith(",") else ","
        alone = not loads(text)["tasks"]
        edited = f"{merged[:stop]}{comma if alone else ''}{MINE}{'' if alone else ','}{merged[stop:]}"
    assert loads(edited)
    left = part.take_out(edited)
    rest = loads(left)
    before = loads(text)
    if where == "key":
        assert rest == {"mine": 1, **before}
    else:
        assert sorted(task["label"] for task in rest["tasks"]) == sorted(
            ["mine", *(task["label"] for task in before["tasks"])]
        )
    assert jsonc.BEGIN not in left and jsonc.END not in left
    strict = json.loads(left) if not re.search(r"//|/\*|,\s*[}\]]", text + "") and "\ufeff" not in text else rest
    assert strict == rest, "strict JSON stays strict JSON"


def test_settings_keep_another_extension_and_its_commands(tmp_path: Path) -> None:
    part = settings_part(tmp_path)
    text = '{\n  "tabs": 4,\n  "emeraldwalk.runonsave": {\n    "shell": "sh", "commands": [{"cmd": "a"}]\n  }\n}\n'
    part.path.parent.mkdir()
    part.path.write_text(text)
    hooks.install(part)
    merged = loads(part.path.read_text())
    assert merged["emeraldwalk.runonsave"]["shell"] == "sh"
    assert merged["emeraldwalk.runonsave"]["commands"][1] == {"cmd": "a"}
    assert "compile link" in merged["emeraldwalk.runonsave"]["commands"][0]["cmd"]
    hooks.uninstall(part)
    assert part.path.read_text() == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "line 1: expected an object around 'tasks'"),
        ('{"tasks": {}}', "tasks is no array"),
        ('{"tasks": [', "line 1: expected"),
        ("{'tasks': []}", "line 1 is not JSON with comments"),
        ("// nothing yet\n", "line 2: expected an object"),
        ('{"a": 1} {"b": 2}', "line 1 has more than one value"),
        ('{"a": /* open', "line 1 is not JSON with comments"),
        (f'{{"tasks": [\n{jsonc.BEGIN}\n1]}}', "line 2: the end of the block is missing"),
    ],
)
def test_what_cannot_be_merged_is_left_alone(tmp_path: Path, text: str, reason: str) -> None:
    part = tasks_part(tmp_path)
    part.path.parent.mkdir()
    part.path.write_text(text)
    done = hooks.install(part)
    assert done.how == "refused" and reason in done.reason
    assert part.path.read_text() == text
    shown = "\n".join(hooks.lines_of(done, tmp_path))
    assert shown.startswith(".vscode/tasks.json:1:1: error: not changed: ")
    assert '"hotplate: watch"' in shown


def test_bytes_that_are_no_text_are_left_alone(tmp_path: Path) -> None:
    part = hook_parts.parts_of("emacs", tmp_path)[0]
    part.path.write_bytes(b"(\xff)")
    assert hooks.install(part).how == "refused" and hooks.uninstall(part).how == "refused"
    assert part.path.read_bytes() == b"(\xff)"


SPACE = st.sampled_from(["", " ", "\n", "\r\n", "\t", " // c\n", "/* c */", "\n  "])


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(["1", "-2.5e3", "true", "null", '"a"', '"// no, }] \\""', '"\u00e4"']))
    gap, items = draw(SPACE), draw(st.lists(values(depth=depth - 1), max_size=3))
    comma = draw(st.sampled_from(["", ","])) if items else ""
    if draw(st.booleans()):
        return f"[{gap}{f',{gap}'.join(items)}{comma}{gap}]"
    members = [f'"k{n}"{gap}:{gap}{item}' for n, item in enumerate(items)]
    return f"{{{gap}{f',{gap}'.join(members)}{comma}{gap}}}"


@given(SPACE, values(), SPACE, st.lists(values(), min_size=1, max_size=2))
@example("", "[1]", "", ["2"])
def test_any_array_or_object_takes_and_gives(before: str, value: str, after: str, items: list[str]) -> None:
    text = before + value + after
    if value[0] not in "[{":
        with pytest.raises(CannotEdit):
            jsonc.insert(text, (), items)
        return
    members = [f'"our{n}": {item}' for n, item in enumerate(items)] if value[0] == "{" else items
    merged = jsonc.insert(text, (), members)
    assert len(loads(merged)) == len(loads(text)) + len(items)
    assert jsonc.removed(merged) == text


# --- files of lines -----------------------------------------------------------------------------


@given(st.text(), st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n")), max_size=3), st.text())
@example("\r", [], "")
def test_any_text_takes_a_block_and_gives_it_back(text: str, body: list[str], later: str) -> None:
    body = [line for line in body if "hotplate" not in line]
    taken = marked_block.appended(text, body, "# ")
    assert taken != text and marked_block.removed(text) == text
    assert marked_block.removed(taken) == text
    left = marked_block.removed(taken + later)
    assert left.startswith(text) and left.endswith(later)
    assert left.removeprefix(text).removesuffix(later) in ("", "\n", "\r\n"), "lines that were apart stay apart"


EXISTING = {
    ".nvim.lua": "vim.o.number = true\n",
    ".nvimrc": "set number",
    ".exrc": "set number\r\n",
    ".dir-locals.el": ";; ours\n\n((c-mode . ((indent-tabs-mode . nil)))\n (nil . ((fill-column . 80))))\n",
    ".clangd": "Diagnostics:\n  Suppress: x\n",
}


@pytest.mark.parametrize("name", EXISTING)
def test_existing_files_of_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(EXISTING[name].encode())
    (part,) = [part for part in all_parts(tmp_path) if part.path == path]
    assert hooks.install(part).how == "written"
    assert "compile" in path.read_text() or name == ".clangd"
    assert hooks.install(part).how == "unchanged"
    with path.open("a", newline="") as stream:
        stream.write("\nmore\n")
    hooks.uninstall(part)
    left = path.read_bytes().decode()
    assert left.startswith(EXISTING[name].rstrip("\n")) and left.endswith("\nmore\n") and "hotplate" not in left
    path.write_bytes(EXISTING[name].encode())
    hooks.install(part)
    hooks.uninstall(part)
    assert path.read_bytes().decode() == EXISTING[name]


def test_a_link_to_dotfiles_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").write_text("set number\n")
    (tmp_path / ".nvimrc").symlink_to("dotfiles")
    (part,) = hook_parts.parts_of("neovim", tmp_path)
    hooks.install(part)
    assert (tmp_path / ".nvimrc").is_symlink() and "hotplate" in (tmp_path / "dotfiles").read_text()
    hooks.uninstall(part)
    assert (tmp_path / ".nvimrc").is_symlink() and (tmp_path / "dotfiles").read_text() == "set number\n"


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".vscode").write_text("a file in the way")
    done = hooks.install(tasks_part(tmp_path))
    assert done.how == "refused" and done.paste


# --- Zed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[]", "[\n]\n", '// mine\n[\n  { "label": "lint", "command": "make" },\n]\n'])
def test_zed_tasks_merge_and_come_out_again(tmp_path: Path, text: str) -> None:
    (part,) = hook_parts.parts_of("zed", tmp_path)
    part.path.parent.mkdir()
    part.path.write_text(text)
    assert hooks.install(part).how == "written"
    tasks = loads(part.path.read_text())
    assert [task["label"] for task in tasks[:3]] == ["hotplate: watch", "hotplate: build", "hotplate: deploy"]
    assert tasks[0]["args"] == ["watch"] and tasks[0]["allow_concurrent_runs"] is False
    assert all(task["cwd"] == "$ZED_WORKTREE_ROOT" for task in tasks[:3])
    assert tasks[3:] == loads(text)
    hooks.uninstall(part)
    assert part.path.read_text() == text


def test_zed_is_no_object(tmp_path: Path) -> None:
    (part,) = hook_parts.parts_of("zed", tmp_path)
    part.path.parent.mkdir()
    part.path.write_text("{}")
    done = hooks.install(part)
    assert (done.how, done.reason) == ("refused", "the file is no array") and '"hotplate: watch"' in done.paste


# --- JetBrains ----------------------------------------------------------------------------------

OTHER = """\
    <TaskOptions isEnabled="false">
      <option name="name" value="Less &lt;b&gt; /> hotplate: build" />
      <envs />
    </TaskOptions>
"""
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
WATCHERS = [
    f'{XML}<project version="4">\n</project>\n',
    f'{XML}<project version="4" />\n',
    f'{XML}<project version="4"><!-- none > yet --></project>',
    f'{XML}<project version="4">\n  <component name="ProjectTasksOptions" suppressed-tasks="Pug;Less" />\n</project>',
    f'{XML}<project version="4">\n  <component name="ProjectTasksOptions">\n  </component>\n</project>\n',
    f"{XML}<project version='4'>\n  <component name='X' a='>' />\n  <component name='ProjectTasksOptions'>\n"
    f"{OTHER}  </component>\n</project>\n",
]


def watchers(text: str) -> list[tuple[str, str]]:
    """(name, program) of each file watcher, as an XML library reads it."""
    found = []
    for task in ElementTree.fromstring(text).findall("./component[@name='ProjectTasksOptions']/TaskOptions"):
        options = {str(option.get("name")): str(option.get("value")) for option in task.findall("option")}
        found.append((options["name"], options.get("program", "")))
    return found


@pytest.mark.parametrize("text", [*WATCHERS, WATCHERS[-1].replace("\n", "\r\n")])
def test_file_watchers_merge_and_come_out_again(tmp_path: Path, text: str) -> None:
    part, *_ = hook_parts.parts_of("jetbrains", tmp_path)
    part.path.parent.mkdir()
    part.path.write_bytes(text.encode())
    before = watchers(text)
    assert hooks.install(part).how == "written"
    merged = part.path.read_bytes().decode()
    (name, program), *others = watchers(merged)
    assert name == "hotplate: build" and program.endswith("hotplate") and others == before
    assert hooks.install(part).how == "unchanged"
    assert hooks.uninstall(part).how == "removed"
    assert part.path.read_bytes() == text.encode()
    assert hooks.uninstall(part).how == "absent"


@pytest.mark.parametrize("text", WATCHERS)
def test_an_ide_that_rewrote_the_file_dropped_the_marks(tmp_path: Path, text: str) -> None:
    """Ours goes by its name, and a later installation replaces it; what somebody else set up stays."""
    part, *_ = hook_parts.parts_of("jetbrains", tmp_path)
    part.path.parent.mkdir()
    part.path.write_text(text)
    hooks.install(part)
    rewritten = re.sub(r"\s*<!--.*?-->", "", part.path.read_text())
    part.path.write_text(rewritten.replace('isEnabled="true"', 'isEnabled="false"'))
    assert hooks.install(part).how == "written"
    assert [name for name, _ in watchers(part.path.read_text())].count("hotplate: build") == 1
    part.path.write_text(rewritten)
    assert hooks.uninstall(part).how == "removed"
    left = part.path.read_text() if part.path.exists() else f"{XML}<project />"
    assert watchers(left) == watchers(text)
    assert ("suppressed-tasks" in left) == ("suppressed-tasks" in text)
    assert part.path.exists() == any(word in text for word in ("suppressed", "Less")), "an empty one of an IDE goes"


def test_a_watcher_that_somebody_added_beside_ours_stays(tmp_path: Path) -> None:
    part, *_ = hook_parts.parts_of("jetbrains", tmp_path)
    text = WATCHERS[3]
    merged = part.put_in(text)
    edited = merged.replace("  </component>", f"{OTHER}  </component>")
    assert len(watchers(edited)) == 2
    left = part.take_out(edited)
    assert [name for name, _ in watchers(left)] == [
        "Less <b> /> hotplate: build"
    ] and 'suppressed-tasks="Pug;Less"' in left


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<project>", "line 1 is not well-formed XML"),
        ("<module />", "it holds a module and no project"),
        ('<!DOCTYPE project [<!ENTITY a "b">]><project />', "it has a document type"),
        (f"<project>{xml_block.BEGIN}</project>", "line 1: the end of the block is missing"),
    ],
)
def test_file_watchers_that_cannot_be_merged(tmp_path: Path, text: str, reason: str) -> None:
    part, *_ = hook_parts.parts_of("jetbrains", tmp_path)
    part.path.parent.mkdir()
    part.path.write_text(text)
    done = hooks.install(part)
    assert done.how == "refused" and reason in done.reason and "hotplate: build" in done.paste
    assert part.path.read_text() == text


def test_run_configurations_are_files_of_ours(tmp_path: Path) -> None:
    _, *parts = hook_parts.parts_of("jetbrains", tmp_path)
    assert [part.path.name for part in parts] == [f"hotplate-{name}.run.xml" for name in ("watch", "deploy", "monitor")]
    for part in parts:
        hooks.install(part)
        (found,) = ElementTree.fromstring(part.path.read_text()).findall("configuration")
        words = {str(option.get("name")): str(option.get("value")) for option in found.findall("option")}
        assert words["SCRIPT_TEXT"].endswith(str(found.get("name")).removeprefix("hotplate: "))
        saved = re.sub(r"<!--.*?-->\n", "", part.path.read_text()).replace(
            'TERMINAL" value="true"', 'TERMINAL" value=""'
        )
        part.path.write_text(saved)
        assert hooks.uninstall(part).how == "removed" and not part.path.exists()
    foreign = '<component name="X"><configuration name="mine hotplate: watch" /></component>'
    parts[0].path.parent.mkdir()
    parts[0].path.write_text(foreign)
    assert hooks.install(parts[0]).how == "refused" and hooks.uninstall(parts[0]).how == "absent"
    assert parts[0].path.read_text() == foreign


# --- git ----------------------------------------------------------------------------------------


def script(path: Path, text: str, mode: int = 0o755) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_a_pre_commit_hook_stands_before_an_existing_one(tmp_path: Path) -> None:
    """Run by a real git: refused while `hotplate` fails, then the old hook runs too."""
    root = tmp_path / "repo/firmware dir"
    root.mkdir(parents=True)
    top = tmp_path / "repo"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(top)]
    subprocess.run([*git, "init", "-q"], check=True)
    path = top / ".git/hooks/pre-commit"
    old = "#!/usr/bin/env bash\nset -e\necho old hook >> old.log\nexit 0\n"
    script(path, old)
    part = hook_parts.git_part(root, top, path.parent)
    part = part._replace(put_in=lambda text: marked_block.put_at(text, text.index("\n") + 1, _fake_git(root), "# "))
    assert hooks.install(part).how == "written"
    (root / "a").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    script(root / "hotplate", "#!/bin/sh\necho broken; exit 1\n")
    refused = subprocess.run([*git, "commit", "-qm", "x"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "broken" in refused.stderr and not (top / "old.log").exists()
    script(root / "hotplate", '#!/bin/sh\ntest "$*" = "compile link"\n')
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    assert (top / "old.log").read_text() == "old hook\n"
    hooks.uninstall(part)
    assert path.read_text() == old and os.access(path, os.X_OK)


def _fake_git(root: Path) -> list[str]:
    from pipeline.editor import hook_texts

    return hook_texts.git("./hotplate", root.name)


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        ("#!/usr/bin/env python3\nprint()\n", 0o755, "no shell script"),
        ("\x7fELF", 0o755, "no shell script"),
        ("#!/bin/sh\n", 0o644, "not executable"),
    ],
)
def test_other_hooks_are_not_destroyed(tmp_path: Path, text: str, mode: int, reason: str) -> None:
    part = hook_parts.git_part(tmp_path, tmp_path, tmp_path / "hooks")
    script(part.path, text, mode)
    done = hooks.install(part)
    assert done.how == "refused" and reason in done.reason and "compile link" in done.paste
    assert part.path.read_text() == text


# --- compile_commands.json ----------------------------------------------------------------------


def test_another_programs_database_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "compile_commands.json"
    entry = {"directory": str(tmp_path), "file": "a.c", "output": "build/a.o"}
    ours = {**entry, "arguments": ["clang", f"-ffile-prefix-map={tmp_path}=.", "-c", "a.c"]}
    for text in ("[]", "{", json.dumps([{**entry, "arguments": ["cc"]}]), json.dumps([{**entry, "command": "cc"}])):
        path.write_text(text)
        assert hooks.install_database(tmp_path, [ours]).how == "kept"
        assert hooks.uninstall_database(tmp_path).how == "absent"
        assert path.read_text() == text
    path.unlink()
    assert hooks.install_database(tmp_path, [ours]).how == "written"
    assert hooks.install_database(tmp_path, [ours]).how == "unchanged"
    assert hooks.install_database(tmp_path, [ours, ours]).how == "written"
    assert hooks.uninstall_database(tmp_path).how == "removed"
    assert not path.exists()


def test_what_editors_share_goes_with_the_last(tmp_path: Path) -> None:
    entry = {"directory": str(tmp_path), "file": "a.c", "output": "build/a.o"}
    entries = [{**entry, "arguments": ["clang", f"-ffile-prefix-map={tmp_path}=.", "-c", "a.c"]}]
    hooks.install_editor(tmp_path, "vscode", entries)
    hooks.install_editor(tmp_path, "emacs", entries)
    hooks.uninstall_editors(tmp_path, ["vscode"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".clangd", ".dir-locals.el", "compile_commands.json"]
    hooks.uninstall_editors(tmp_path, ["emacs"])
    assert list(tmp_path.iterdir()) == []

"""What `doit hooks:install` puts into the files of each editor: texts for one command line of this project.

Values in, values out. Does not know files, or how a text gets into one. Invariant: every text works from any checkout;
the only word that can name a place on this machine is the command.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

PATTERN = r"^([^\s:][^:]*):(\d+):(\d+): (error|warning): (.*)$"
"""How `doit` and the compilers write what is wrong where; the only form that they write."""

TASKS_FILE = ".vscode/tasks.json"
SETTINGS_FILE = ".vscode/settings.json"
ZED_FILE = ".zed/tasks.json"
WATCHERS_FILE = ".idea/watcherTasks.xml"
WATCHERS_COMPONENT = "ProjectTasksOptions"
WATCHER_NAME = "hotplate: build"


def vscode_tasks(command: str, doit: str) -> list[str]:
    """Elements of `tasks`: the watch, one build, one deploy."""
    matcher: dict[str, Any] = {
        "owner": "hotplate",
        "source": "hotplate",
        "fileLocation": ["autoDetect", "${workspaceFolder}"],
        "pattern": {"regexp": PATTERN, "file": 1, "line": 2, "column": 3, "severity": 4, "message": 5},
    }
    background = {
        "activeOnStart": True,
        "beginsPattern": r"^\[watch\] build started$",
        "endsPattern": r"^\[watch\] build finished$",
    }
    quiet = {"reveal": "silent", "panel": "dedicated", "showReuseMessage": False}
    tasks: list[dict[str, Any]] = [
        {
            "label": "hotplate: watch",
            "detail": "build after every save; problems go to the Problems panel",
            "type": "process",
            "command": doit,
            "args": ["watch"],
            "isBackground": True,
            "runOptions": {"runOn": "folderOpen"},
            "presentation": quiet,
            "problemMatcher": {**matcher, "background": background},
        },
        {
            "label": "hotplate: build",
            "type": "process",
            "command": command,
            "args": ["compile", "link"],
            "group": "build",
            "presentation": quiet,
            "problemMatcher": matcher,
        },
        {
            "label": "hotplate: deploy",
            "type": "process",
            "command": command,
            "args": ["deploy"],
            "group": "build",
            "problemMatcher": matcher,
        },
    ]
    return [json.dumps(task, indent=2) for task in tasks]


def vscode_on_save(command: str) -> str:
    """Element of `commands` of the extension emeraldwalk.runonsave. It neither waits nor stops an earlier command:
    calls queue on the project's lock, and one whose work is done ends at once.

    Every file matches. Which are inputs, no list of endings can tell: an action's script is one, a CSV file, or a
    header that appears earlier on an include path; and what is read changes with `deploy.toml`. `hotplate` knows, and
    answers within milliseconds that the saved file is none."""
    return json.dumps(
        {"match": ".*", "isAsync": True, "cmd": f'cd "${{workspaceFolder}}" && "{command}" compile link'}, indent=2
    )


def zed_tasks(command: str, doit: str) -> list[str]:
    """Elements of `.zed/tasks.json`: the watch, one build, one deploy. Zed starts no task on a save, so the watch is
    what builds; its terminal makes links of `path:line:column`. `command` and `doit` are words for a shell."""
    common = {"cwd": "$ZED_WORKTREE_ROOT", "use_new_terminal": False, "allow_concurrent_runs": False}
    tasks: list[dict[str, Any]] = [
        {"label": "hotplate: watch", "command": doit, "args": ["watch"], **common, "reveal": "no_focus"},
        {"label": WATCHER_NAME, "command": command, "args": ["compile", "link"], **common, "save": "all"},
        {"label": "hotplate: deploy", "command": command, "args": ["deploy"], **common, "save": "all"},
    ]
    return [json.dumps(task, indent=2) for task in tasks]


def jetbrains_watcher(program: str) -> list[str]:
    """A `TaskOptions` of `.idea/watcherTasks.xml`: every saved file (`*` is "Any"), explicit saves and not keystrokes,
    broken code too. The console shows itself on an error; the filter is that of the form of our error lines."""
    pattern = "$FILE_PATH$:$LINE$:$COLUMN$: $MESSAGE$"
    options = {
        "arguments": "compile link",
        "checkSyntaxErrors": "false",
        "exitCodeBehavior": "ERROR",
        "fileExtension": "*",
        "immediateSync": "false",
        "name": WATCHER_NAME,
        "output": "",
        "outputFromStdout": "false",
        "program": program,
        "runOnExternalChanges": "false",
        "scopeName": "Project Files",
        "trackOnlyRoot": "false",
        "workingDir": "$ProjectFileDir$",
    }
    lines = [f"  {_option(name, value)}" for name, value in options.items()]
    place = next(n for n, name in enumerate(options) if name == "outputFromStdout")
    filters = [
        '  <option name="outputFilters">',
        "    <array>",
        "      <FilterInfo>",
        f"        {_option('description', '')}",
        f"        {_option('name', 'hotplate')}",
        f"        {_option('regExp', pattern)}",
        "      </FilterInfo>",
        "    </array>",
        "  </option>",
    ]
    return ['<TaskOptions isEnabled="true">', *lines[:place], *filters, *lines[place:], "  <envs />", "</TaskOptions>"]


def run_words(command: str, doit: str) -> Mapping[str, str]:
    """Name of a run configuration -> its words for a shell."""
    return {
        "hotplate: watch": f"{shlex.quote(doit)} watch",
        "hotplate: deploy": f"{shlex.quote(command)} deploy",
        "hotplate: monitor": f"{shlex.quote(doit)} monitor",
    }


def jetbrains_configuration(name: str, words: str) -> str:
    """A run configuration (`.run/*.run.xml`) that runs `words` in the IDE's terminal, in the project's directory."""
    options = {
        "SCRIPT_TEXT": words,
        "INDEPENDENT_SCRIPT_PATH": "true",
        "SCRIPT_PATH": "",
        "SCRIPT_OPTIONS": "",
        "INDEPENDENT_SCRIPT_WORKING_DIRECTORY": "true",
        "SCRIPT_WORKING_DIRECTORY": "$PROJECT_DIR$",
        "INDEPENDENT_INTERPRETER_PATH": "true",
        "INTERPRETER_PATH": "",
        "INTERPRETER_OPTIONS": "",
        "EXECUTE_IN_TERMINAL": "true",
        "EXECUTE_SCRIPT_FILE": "false",
    }
    lines = "".join(f"    {_option(key, value)}\n" for key, value in options.items())
    return (
        '<component name="ProjectRunConfigurationManager">\n'
        f'  <configuration default="false" name={quoteattr(name)} type="ShConfigurationType">\n'
        f'{lines}    <envs />\n    <method v="2" />\n  </configuration>\n</component>\n'
    )


def _option(name: str, value: str) -> str:
    return f"<option name={quoteattr(name)} value={quoteattr(value)} />"


NEOVIM = """\
local command = COMMAND
local root = vim.fn.fnamemodify(vim.fn.findfile('deploy.toml', vim.fn.getcwd() .. ';'), ':p:h')
if command:sub(1, 2) == './' then command = root .. command:sub(2) end
local job
-- Errors and warnings of a run to the quickfix list, wherever Neovim was started.
local function show(lines, code)
  local items = {}
  for _, line in ipairs(lines) do
    local path, row, column, kind, text = line:match('^([^%s:][^:]*):(%d+):(%d+): (%l+): (.*)$')
    if kind == 'error' or kind == 'warning' then
      local name = path:sub(1, 1) == '/' and path or (root .. '/' .. path)
      table.insert(items, { filename = name, lnum = tonumber(row), col = tonumber(column),
        text = text, type = kind == 'error' and 'E' or 'W' })
    end
  end
  vim.fn.setqflist({}, 'r', { title = 'hotplate', items = items })
  local verdict = code == 0 and 'built' or ('failed with exit code ' .. code)
  vim.api.nvim_echo({ { 'hotplate: ' .. verdict .. (#items > 0 and ', ' .. #items .. ' in :copen' or '') } }, false, {})
end
vim.api.nvim_create_autocmd('BufWritePost', {
  group = vim.api.nvim_create_augroup('hotplate', { clear = true }),
  callback = function(saved)
    local name = vim.fn.fnamemodify(saved.match, ':p')
    if name:sub(1, #root + 1) ~= root .. '/' then return end
    if job then vim.fn.jobstop(job) end  -- what it builds is out of date
    local lines, mine = { '' }, nil
    local function collect(_, data)
      lines[#lines] = lines[#lines] .. data[1]
      for n = 2, #data do table.insert(lines, data[n]) end
    end
    mine = vim.fn.jobstart({ command, 'compile', 'link' }, {
      cwd = root, on_stderr = collect,
      on_exit = function(_, code)
        if job == mine then job = nil; show(lines, code) end
      end,
    })
    job = mine
  end,
})"""


def neovim(command: str, *, vimscript: bool) -> list[str]:
    """Lines for `.nvim.lua`, or for `.nvimrc` and `.exrc`, which plain Vim reads too."""
    lua = ["do", *NEOVIM.replace("COMMAND", _lua_string(command)).splitlines(), "end"]
    return ["if has('nvim-0.7')", "lua << HOTPLATE", *lua, "HOTPLATE", "endif"] if vimscript else lua


def _lua_string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


EMACS = """\
 (nil . ((eval . (add-hook 'after-save-hook
   (lambda ()
     (let ((default-directory (locate-dominating-file buffer-file-name "deploy.toml"))
           (compilation-always-kill t)
           (display-buffer-alist '(("\\\\`\\\\*hotplate\\\\*\\\\'" (display-buffer-no-window) (allow-no-window . t)))))
       (compilation-start COMMAND nil (lambda (_mode) "*hotplate*"))))
   nil t))))"""


def emacs(command: str) -> list[str]:
    """Entries of the list in `.dir-locals.el`: each save compiles into the buffer `*hotplate*`."""
    quoted = '"' + f"{command} compile link".replace("\\", "\\\\").replace('"', '\\"') + '"'
    return EMACS.replace("COMMAND", quoted).splitlines()


def git(command: str, directory: str) -> list[str]:
    """Lines of a shell script: no commit of what does not build. `directory`: the project within the repository."""
    return [f"(cd '{directory}' && '{command}' compile link) >&2 || exit 1"]


def clangd() -> list[str]:
    """A fragment of `.clangd`: the database lies beside it, and holds what only gcc knows already left out."""
    return ["CompileFlags:", "  CompilationDatabase: ."]

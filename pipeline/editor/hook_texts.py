"""What `doit hooks:install` puts into the files of each editor: texts for one command line of this project.

Values in, values out. Does not know files, or how a text gets into one. Invariant: every text works from any checkout;
the only word that can name a place on this machine is the command.
"""

from __future__ import annotations

import json
from typing import Any

PATTERN = r"^([^\s:][^:]*):(\d+):(\d+): (error|warning): (.*)$"
"""How `doit` and the compilers write what is wrong where; the only form that they write."""

TASKS_FILE = ".vscode/tasks.json"
SETTINGS_FILE = ".vscode/settings.json"


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
    calls queue on the project's lock, and one whose work is done ends at once."""
    return json.dumps(
        {
            "match": r"(\.(c|h|S|ld|csv)|[/\\]deploy\.toml)$",
            "notMatch": r"[/\\](build|\.deploy|reports)[/\\]",
            "isAsync": True,
            "cmd": f'cd "${{workspaceFolder}}" && "{command}" compile link',
        },
        indent=2,
    )


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

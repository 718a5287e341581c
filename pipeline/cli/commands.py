"""`doit` commands that are views, not work: `monitor, explain, graph, plan, report`.

One of the three modules that know doit. Knows options and how to print; what a port is, effects know, what is said
about a project, `views` and `report_view` know. Invariant: stdout holds the device's bytes or the view and nothing
else; exit codes are doit's (2 bad configuration, 3 bad usage).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.command_words import flag, given, option, printed, refused, surplus
from pipeline.cli.monitor_command import FLAGS, MONITOR_OPTIONS, execute
from pipeline.cli.usage import PlainCommand
from pipeline.effects.closed_streams import open_closed_streams
from pipeline.errors import DeployError
from pipeline.fastpath import interrupt_again
from pipeline.model import Failure
from pipeline.run.options import Options

if TYPE_CHECKING:
    from pipeline.run.build import Build

# doit imports this module to run one of its commands.
open_closed_streams()
interrupt_again()


FILTER_TEXTS = (
    ("device", "only this device of deploy.toml"),
    ("group", "only devices of this group"),
    ("chip", "only devices with this chip"),
    ("tag", "only devices with this tag"),
)


class Monitor(PlainCommand):
    """Show what a device says, and send it what is typed."""

    doc_purpose = "show what a device says; lines typed on stdin are sent to it"
    doc_usage = (
        "[DEVICE] [--reset | --no-reset] [--filter REGEX] [--mute REGEX] [--levels RULES] [--timestamps] [--raw] "
        "[--no-fold] [--no-decode] [--history [--grep REGEX]] [--since WHEN] [--until REGEX] "
        "[--call METHOD [--params JSON]] [--seconds N]"
    )
    doc_description = (
        "Opens the device's port at its monitor baud, resets the board into its application (unless --no-reset) and "
        "copies its output to stdout until Ctrl-C. Backtraces of panics are decoded on stderr with the ELF of the "
        "image that runs (unless --no-decode); lost bytes are told there. With --until the exit code says whether a "
        "line matched: 0 yes, 1 no. --call asks one JSON-RPC method and prints its result alone. A typed line "
        "`/call METHOD [JSON]` asks one too, `/reset` resets the board. On a terminal, and with --filter, --mute, "
        "--levels or --timestamps, lines are shown as text: nothing steers the terminal, and repeated lines are "
        "folded; else, and with --raw, every byte goes through as it is. Lines of a crash are never left out. "
        "Where the service runs (`doit serve`), the board is shared and not reset, and what it said since its last "
        "boot comes first (--since boot, deploy, all or now). --history shows what is kept of the device's console "
        "and ends with 0, or with 1 when nothing was found; --since is then also a time, as 10m, or a transaction."
    )
    cmd_options = MONITOR_OPTIONS

    def parse_execute(self, in_args: list[str]) -> Any:
        """doit stops reading options at the first other word; people also name the device first."""
        options, words, rest = [], [], iter(in_args)
        for word in rest:
            if not word.startswith("--"):
                words.append(word)
            elif "=" in word or word in FLAGS:
                options.append(word)
            else:
                options += [word, *(value for value in [next(rest, None)] if value is not None)]
        return super().parse_execute([*options, *words])

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        return execute(opt_values, pos_args)


class Watch(PlainCommand):
    """Build on save."""

    doc_purpose = "build, and with --deploy deploy, after every save"
    doc_usage = "[--deploy] [--device NAME] [--group NAME] [--profile NAME] [--poll]"
    doc_description = (
        "Watches what the build reads. A newer save cancels a build that it made obsolete; a flash write is let "
        "finish. With --deploy a save that changed no image leaves the board alone. Ends with Ctrl-C."
    )
    cmd_options = (
        flag("deploy", "deploy when an image changed", default=False),
        flag("poll", "look again and again instead of asking the system, for network file systems", default=False),
        option("device", "deploy to this device of deploy.toml"),
        option("group", "deploy to all devices of this group"),
        option("profile", "build with this profile of deploy.toml"),
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from pipeline.editor.watch import watch
        from pipeline.effects.file_events import WatchUnavailable
        from pipeline.run.project import load_project

        if pos_args:
            return refused(surplus("watch", pos_args), 3)
        options = Options(
            devices=given(opt_values["device"]), groups=given(opt_values["group"]), profile=opt_values["profile"]
        )
        wrong = load_project(options)
        if isinstance(wrong, Failure) and wrong.where.startswith("--"):  # a file that is wrong may be saved anew
            return refused(wrong, 2)
        try:
            watch(Path.cwd().resolve(), options, deploy=opt_values["deploy"], poll=opt_values["poll"])
        except WatchUnavailable as error:
            hint = "install it with: pip install 'hotplate[watch]' (or uv sync --extra watch), or try --poll"
            print(f"watch: error: {error}\nhint: {hint}", file=sys.stderr)
            return 2
        return 130


class Lease(PlainCommand):
    """Have boards for a while."""

    doc_purpose = "have boards to yourself, for one command or until Ctrl-C"
    doc_usage = "[--device NAME] [--group NAME] [--reason TEXT] [--take] [-- COMMAND...]"
    doc_description = (
        "Every deploy honours a lease, whatever project it is of. COMMAND and what it starts may use the boards. "
        "The lease ends with this process. --take takes boards over from whoever has them; they are told."
    )
    cmd_options = (
        option("device", "device of deploy.toml"),
        option("group", "all devices of this group"),
        option("reason", "what others are told"),
        flag("take", "take the boards over from whoever has leased them", default=False),
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from pipeline.cli import lease
        from pipeline.run.project import load_project

        command = lease.words(sys.argv[1:])
        if pos_args and not command:
            return refused(surplus("lease", pos_args, "name the device with --device, write a command after --"), 3)
        devices, groups = given(opt_values["device"]), given(opt_values["group"])
        options = Options(devices=devices, groups=groups, take=opt_values["take"], reason=opt_values["reason"])
        project = load_project(options)
        if isinstance(project, Failure):
            return refused(project, 2)
        code = lease.run(project, command)
        return refused(code, 1) if isinstance(code, Failure) else code


class Mcp(PlainCommand):
    """The project as tools for an agent."""

    doc_purpose = "serve this project's tools to an AI agent over MCP: stdio, or --http on this machine"
    doc_usage = "[--http] [--port N]"
    doc_description = (
        "Build, deploy, monitor, live tests, reports and leases as tools with structured results and progress, for the "
        "devices of deploy.toml alone. Over stdio the agent's client starts it (see .mcp.json); --http listens on "
        "127.0.0.1 with a token, which lies beside the address in .deploy/mcp.json. Needs the extra [mcp]."
    )
    cmd_options = (
        flag("http", "listen on 127.0.0.1 instead of stdio", default=False),
        {"name": "port", "short": "", "long": "port", "type": int, "default": 0, "help": "with --http; 0: a free one"},
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from pipeline.cli import mcp

        if pos_args:
            return refused(surplus("mcp", pos_args), 3)
        try:
            code = mcp.run(Path.cwd().resolve(), http=opt_values["http"], port=opt_values["port"])
        except KeyboardInterrupt:
            return 130
        return refused(code, 2) if isinstance(code, Failure) else code


class View(PlainCommand):
    """A command that loads the project, prints one text about it and ends."""

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        """What belongs on stdout, or bad usage."""
        raise NotImplementedError

    def parse_execute(self, in_args: list[str]) -> Any:
        """doit stops reading options at the first other word; people also write them last."""
        options, words, rest = [], [], iter(in_args)
        flags = {option["long"] for option in self.cmd_options if option["type"] is bool}
        for word in rest:
            if word.startswith("--"):
                alone = "=" in word or word[2:] in flags
                options += [word] if alone else [word, *(value for value in [next(rest, None)] if value is not None)]
            else:
                words.append(word)
        return super().parse_execute([*options, *words])

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from pipeline.run.build import load_build

        options = Options(
            devices=given(opt_values.get("device")),
            groups=given(opt_values.get("group")),
            chips=given(opt_values.get("chip")),
            tags=given(opt_values.get("tag")),
            profile=opt_values.get("profile", ""),
        )
        build = load_build(options)
        if isinstance(build, Failure):
            return refused(build, 2)
        try:
            text = self.text(build, opt_values, pos_args)
        except DeployError as error:
            return refused(error.failure, 2)
        except KeyboardInterrupt:
            return 130
        finally:
            build.close()
        if isinstance(text, Failure):
            return refused(text, 3)
        return printed(text)


class Explain(View):
    """Say why something would run."""

    doc_purpose = "say why something would run, or what was compared; runs nothing"
    doc_usage = "[TASK | ACTION | FILE ...] [--profile NAME]"
    doc_description = (
        "For each action that is not up to date: the first input that moved since its last run, old and new. "
        "A word is a task (compile, link, ...), the name of an action, or a file that actions make or read. "
        "Without words: all."
    )
    cmd_options = (option("profile", "explain the build with this profile of deploy.toml"),)

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.cli.views import explain_text

        return explain_text(build, pos_args)


class Plan(View):
    """A dry run."""

    doc_purpose = "dry run: what would be compiled, restored, linked and written"
    doc_usage = "[--profile NAME] [--device NAME] [--group NAME]"
    doc_description = (
        "Nothing is run or written and no port is opened. What is said about a board is what its journal believes."
    )
    cmd_options = (
        option("profile", "plan the build with this profile of deploy.toml"),
        option("device", "plan for this device of deploy.toml"),
        option("group", "plan for all devices of this group"),
    )

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.cli.views import plan_text

        if pos_args:
            return surplus("plan", pos_args)
        others = [
            type(build)(variant, keeps=False) for variant in build.project.variants if variant is not build.project
        ]
        try:
            return plan_text([build, *others])
        finally:
            for other in others:
                other.close()


class Graph(View):
    """The DAG as a picture."""

    doc_purpose = "the actions as a graph: critical path, and what an edit would rebuild"
    doc_usage = "[--format dot|mermaid|svg|png|text] [--output FILE] [--what-if FILE] [--profile NAME]"
    doc_description = (
        "Durations are those measured when the actions last ran. --what-if marks what an edit of FILE would run, and "
        "prints a list unless a format or an output is named. The format defaults to the output's suffix, then to dot. "
        "PNG needs an SVG renderer (cairosvg, rsvg-convert or inkscape); everything else needs nothing."
    )
    cmd_options = (
        option("format", "dot, mermaid, svg, png or text"),
        option("output", "write to this file instead of stdout"),
        option("what_if", "mark what an edit of this file would rebuild", long="what-if"),
        option("profile", "draw the build with this profile of deploy.toml"),
    )

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.cli.views import graph_text

        if pos_args:
            return surplus("graph", pos_args)
        return graph_text(build, opt_values["format"], opt_values["output"], opt_values["what_if"])


class Report(View):
    """Reports of deploys, baselines and benchmarks."""

    doc_purpose = "list, show and compare the reports of deploys, baselines and benchmarks; the history as a page"
    doc_usage = "[list | show [TX] | diff TX TX | html] [--format md|json|csv] [--limit N] [--output FILE]"
    doc_description = (
        "TX is a transaction, a baseline or a benchmark: its id, the beginning or the end of one, `last`, or the path "
        "of a JSON report. `show` prints Markdown for a deploy, else tables, unless --format says otherwise. "
        "`html` writes index.html beside the reports: the last runs, trends and the budget, without network or script."
    )
    cmd_options = (
        option("format", "show: md, json, or csv (baselines); list: json, whole reports"),
        {"name": "limit", "short": "", "long": "limit", "type": int, "default": 20, "help": "list at most N, 0: all"},
        option("output", "html: write to this file"),
    )

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        if pos_args == ["html"]:
            from pipeline.cli.report_html import html_text

            return html_text(build.project, opt_values["output"])
        from pipeline.cli.report_view import report_text

        return report_text(build.project, pos_args, opt_values["format"], opt_values["limit"])


class Size(View):
    """How large the application is."""

    doc_purpose = "how large the application is, by section, archive or file; or how two reports differ"
    doc_usage = "[TX [TX]] [--by section|archive|file] [--json] [--profile NAME]"
    doc_description = (
        "Without words: the build that lies there, beside the one before, and the limits of [size]. TX is a "
        "transaction, as with `doit report`; of two the second is shown beside the first. Builds nothing."
    )
    cmd_options = (
        option("by", "section, archive or file"),
        flag("json", "as JSON", default=False),
        option("profile", "look at the build with this profile of deploy.toml"),
    )

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.cli.size_view import size_text

        return size_text(build, pos_args, opt_values["by"], as_json=opt_values["json"])


class Devices(View):
    """The boards of the project, and those that nobody has named."""

    doc_purpose = "list the boards: chip, MAC, port, identity, lease, last deploy; and ports that no device names"
    doc_usage = "[--device NAME] [--group NAME] [--chip CHIP] [--tag TAG] [--json]"
    doc_description = (
        "A device has to pass every filter that is given. Opens no port: `doit devices:discover` does, and adds what "
        "answers to deploy.toml. --json prints the same for programs."
    )
    cmd_options = (
        *(option(name, text) for name, text in FILTER_TEXTS),
        flag("json", "as JSON", default=False),
    )

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.cli.devices import devices_text

        if pos_args:
            return surplus("devices", pos_args)
        asked = any(opt_values[name] for name, _ in FILTER_TEXTS)
        return devices_text(build.project, all_of_them=not asked, as_json=opt_values["json"])


class Status(View):
    """Pages about every device."""

    doc_purpose = "write the status pages: devices, checks, failure rates"
    doc_usage = "[--output DIR] [--unit-tests FILE]"
    doc_description = (
        "Reads the history and the newest reports, and writes index.md, live-results.md, deploy-summary.md and "
        "live-results-all.json into status/ beside the reports. --unit-tests takes the JUnit XML of your own tests; "
        "its counts stay until it is given again. Opens no port."
    )
    cmd_options = (
        option("output", "directory for the pages"),
        option("unit_tests", "JUnit XML of your unit tests", long="unit-tests"),
    )

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.cli.status import status_text

        if pos_args:
            return surplus("status", pos_args)
        return status_text(build.project, opt_values["output"], opt_values["unit_tests"])


class Gate(View):
    """A go/no-go decision from evidence."""

    doc_purpose = "go or no-go: is a phase worth a change, and does the candidate help? (see docs/gate.md)"
    doc_usage = "--phase PHASE --candidate ARM --baseline ARM [--pairs N] [--device NAME] [--profile NAME]"
    doc_description = (
        "Takes the warm deploys of this machine for the phase's share, and runs interleaved pairs of real deploys in "
        "scratch copies for the effect. An ARM is a level of the verify ladder (md5, app-report, journal), a setting "
        "(--candidate=device.baud=921600, in one word: doit keeps words of the form KEY=VALUE for itself) or an option "
        "of deploy (--candidate=--x=y). Exit code 0 means GO, 1 means NO-GO or INSUFFICIENT."
    )
    cmd_options = (
        option("phase", "the part of a deploy that the candidate is to shorten"),
        option("candidate", "the arm that is proposed"),
        option("baseline", "the arm that it would replace"),
        {"name": "pairs", "short": "", "long": "pairs", "type": int, "default": 0, "help": "pairs to run"},
        option("device", "deploy to this device of deploy.toml"),
        option("profile", "build with this profile of deploy.toml"),
    )
    _go = False

    def text(self, build: Build, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        import shlex

        from pipeline.measure.compare.decision import GateVerdict
        from pipeline.measure.compare.evidence import GateOptions, gate_text

        if pos_args:
            return surplus("gate", pos_args)
        words = (opt_values["phase"], opt_values["candidate"], opt_values["baseline"])
        asked = GateOptions(*words, pairs=opt_values["pairs"], command=shlex.join(["doit", *sys.argv[1:]]))
        found = gate_text(build, asked, lambda line: print(line, file=sys.stderr, flush=True))
        if isinstance(found, Failure):
            return found
        self._go = found[0] is GateVerdict.GO
        return found[1]

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        code: int = super().execute(opt_values, pos_args)
        return code or int(not self._go)

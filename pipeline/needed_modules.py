"""Which modules of ours a run needs, by its kind: for whoever has time to load them before the run comes to them.

Knows names, of which those are left out that others of the same list import. Imports nothing itself: it is loaded
where somebody waits. Invariants: a name that is missing, or cannot be imported here, costs a run its import and no
more; `tests/e2e/test_needed_modules.py` holds each list against runs of its kind.
"""

EDITED = (
    "pipeline.cli.direct",
    "pipeline.engine.scheduler",
    "pipeline.run.engines",
    "pipeline.run.far_execution",
    "pipeline.run.shared_cache",
    "pipeline.stages.fingerprint",
    "pipeline.stages.compile",
    "pipeline.stages.link",
    "cache.store",
)
"""A run of host stages for an edited source, until its compiler has been started: loaded by a `hotplate` that still
looks for more that moved. Nothing that an edit can do without, since it may not have to wait for that look."""

AFTER_LINK = (
    "pipeline.device.elf_store",
    "pipeline.formats.linker_script",
    "pipeline.report.size_measured",
    "pipeline.run.built_images",
    "pipeline.run.built_sizes",
    "pipeline.toolchain.builtins",
    "pipeline.toolchain.placements",
)
"""What the same run comes to once there is another ELF file: loaded while the linker runs."""

OF_IMAGES = (
    "base64",
    "contextvars",
    "hashlib",
    "locale",
    "shlex",
    "string",
    "traceback",
    "tempfile",
    "configparser",
    "pathlib",
    "click.shell_completion",
    "rich.progress_bar",
    "rich.console",
    "rich_click",
    "serial.tools.list_ports",
    "intelhex",
)
"""What esptool, which makes images, imports of others: three quarters of what its import takes. Itself it reads a file
that place and environment name, so it is for a process that is at those of its run."""

BUILD = (
    *EDITED,
    *AFTER_LINK,
    "pipeline.hotplate",
    "pipeline.tasks",
    "pipeline.cli.cache_tasks",
    "pipeline.cli.check_tasks",
    "pipeline.editor.tasks",
    "pipeline.cli.users_state",
    "pipeline.livetest.tasks",
    "pipeline.measure.tasks",
    "pipeline.shelf.tasks",
    "pipeline.effects.utf8",
    "pipeline.engine.leftovers",
    "pipeline.fastpath.handover",
    "pipeline.fastpath.native_build",
    "pipeline.fastpath.renewal",
    "pipeline.fastpath.whole_state",
    "pipeline.formats.c_source",
    "pipeline.formats.diagnostics",
    "pipeline.toolchain.action_failures",
    "pipeline.toolchain.build",
    "encodings.utf_8_sig",
)
"""A build, by doit or without it: loaded by the process that `doit watch` keeps for the next save."""

DEPLOY = (
    *BUILD,
    *OF_IMAGES,
    "pipeline.stages.verify_flash",
    "pipeline.stages.reflash",
    "pipeline.stages.changed_sectors",
    "pipeline.stages.reattach",
    "pipeline.stages.ttfb",
    "pipeline.run.ahead",
    "pipeline.run.exports",
    "pipeline.run.held_boards",
    "pipeline.client.connection",
    "pipeline.device.journal_file",
    "pipeline.device.ports",
    "pipeline.device.session",
    "concurrent.futures.thread",
    "sqlite3",
    "difflib",
    # its import opens no emulator; whoever has no virtual board has none of it
    "virtualboard.port",
    "virtualboard.rv32",
    "virtualboard.stub",
)
"""A deploy too: loaded by the service's runner. Without what does something when it is imported, which would be done
in another place and environment than the run's, as esptool."""


def load_modules(names: "tuple[str, ...]") -> None:
    """Import them. What cannot be imported is left to whoever needs it, who then says so."""
    for name in names:
        try:  # noqa: SIM105 - contextlib is a module too
            __import__(name)
        except Exception:
            pass

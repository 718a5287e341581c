"""What a runner has loaded before anybody comes: the modules that a deploy imports, none of which does anything then.

Knows names. Invariant: a name that is missing here, or cannot be imported, costs a run its import and no more.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect

PRELOADED = (
    "doit.doit_cmd",
    "doit.cmd_run",
    "pipeline.tasks",
    "pipeline.cli.cache_tasks",
    "pipeline.cli.check_tasks",
    "pipeline.cli.direct",
    "pipeline.cli.reporter",
    "pipeline.editor.tasks",
    "pipeline.measure.tasks",
    "pipeline.fastpath.handover",
    "pipeline.fastpath.state",
    "pipeline.effects.packages",
    "pipeline.effects.versions",
    "pipeline.engine.engine",
    "pipeline.engine.facts",
    "pipeline.engine.leftovers",
    "pipeline.engine.partial_graph",
    "pipeline.engine.scheduler",
    "pipeline.fastpath.native_build",
    "pipeline.fastpath.native_loop",
    "pipeline.formats.diagnostics",
    "pipeline.livetest.tasks",
    "pipeline.run.engines",
    "pipeline.shelf.tasks",
    "pipeline.toolchain.build",
    "pipeline.toolchain.compiled",
    "pipeline.toolchain.distribution",
    "pipeline.toolchain.filesystems",
    "pipeline.toolchain.generate",
    "pipeline.toolchain.globs",
    "pipeline.toolchain.named_files",
    "pipeline.toolchain.products",
    "pipeline.toolchain.programs",
    "pipeline.toolchain.user_actions",
    "pipeline.toolchain.zig",
    "pipeline.stages.fingerprint",
    "pipeline.stages.compile",
    "pipeline.stages.link",
    "pipeline.stages.verify_flash",
    "pipeline.stages.reflash",
    "pipeline.stages.reattach",
    "pipeline.stages.ttfb",
    "pipeline.toolchain.builtins",
    "pipeline.device.elf_store",
    "pipeline.hotplate",
    "pipeline.report.size_measured",
    "pipeline.run.ahead",
    "pipeline.run.built_images",
    "pipeline.run.built_sizes",
    "pipeline.run.far_execution",
    "pipeline.run.shared_cache",
    "pipeline.run.device_service",
    "pipeline.run.exports",
    "pipeline.cli.users_state",
    "pipeline.client.connection",
    "pipeline.effects.utf8",
    "pipeline.device.connect",
    "pipeline.device.flash_baud",
    "pipeline.device.journal_file",
    "pipeline.device.leases",
    "pipeline.device.ports",
    "pipeline.device.rom_loader",
    "pipeline.device.serial_link",
    "pipeline.device.session",
    "pipeline.flash.image_set",
    "pipeline.formats.boot_rules",
    "pipeline.toolchain.config_places",
    "pipeline.toolchain.placements",
    "pipeline.report.document",
    "pipeline.report.markdown",
    "cache.store",
    "concurrent.futures.thread",
    "sqlite3",
    "ctypes",
    "difflib",
    "locale",
    "mmap",
    "encodings.utf_8_sig",
    "xxhash",
    # its import opens no emulator; whoever has no virtual board has none of it
    "virtualboard.port",
    "virtualboard.rv32",
)


def preload() -> None:
    """Import all of them."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from pipeline.fastpath.handover import remember_plugins

    remember_plugins()
    # doit reads where each task is declared; the patterns of `tokenize` take longer to compile than to use.
    inspect.getsourcelines(preload)

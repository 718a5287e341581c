"""What a runner has loaded before anybody comes: the modules that a deploy imports, none of which does anything then.

Knows names. Invariant: a name that is missing here, or cannot be imported, costs a run its import and no more.
"""

from __future__ import annotations

import contextlib
import importlib

PRELOADED = (
    "doit.doit_cmd",
    "doit.cmd_run",
    "pipeline.tasks",
    "pipeline.cli.cache_tasks",
    "pipeline.cli.check_tasks",
    "pipeline.cli.reporter",
    "pipeline.editor.tasks",
    "pipeline.measure.tasks",
    "pipeline.fastpath.handover",
    "pipeline.fastpath.state",
    "pipeline.engine.scheduler",
    "pipeline.stages.fingerprint",
    "pipeline.stages.compile",
    "pipeline.stages.link",
    "pipeline.stages.verify_flash",
    "pipeline.stages.reflash",
    "pipeline.stages.reattach",
    "pipeline.stages.ttfb",
    "pipeline.toolchain.builtins",
    "pipeline.run.built_images",
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
    # its import opens no emulator; whoever has no virtual board has none of it
    "virtualboard.port",
    "virtualboard.rv32",
    "unicorn",
)


def preload() -> None:
    """Import all of them."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)

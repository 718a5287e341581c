"""The whole examination: what is asked, in which order, and what depends on a readable deploy.toml.

Knows which parts there are; each finds out for itself. Invariant: opens no port without `probe`, builds nothing, and
what one part cannot do leaves the others be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cache.durable import read_text
from cache.location import user_cache_dir
from pipeline.client.connection import Connection, NoService
from pipeline.config.reader import parse_config
from pipeline.config.schema import CacheSettings, DeployConfig
from pipeline.config.selection import Filters, devices_of
from pipeline.device.leases import user_shelf
from pipeline.doctor.boards import examine_devices, examine_ports
from pipeline.doctor.findings import DoctorFinding, bad, note, ok, warning
from pipeline.doctor.packages import examine_packages
from pipeline.doctor.places import examine_cache, examine_project, examine_shared
from pipeline.doctor.tools import examine_tools, needed_extras
from pipeline.model import Failure
from pipeline.run.options import Options
from pipeline.run.project import CONFIG_FILE, STATE_DIR, Project, load_project

TASKS_FILE = "dodo.py"


def examine(root: Path, options: Options, *, probe: bool) -> Iterator[DoctorFinding]:
    """Everything, as it is found."""
    found, config, project = _configured(root, options)
    yield from examine_packages(needed_extras(config) if config is not None else ())
    yield from found
    yield from examine_tools(root, config) if config is not None else ()
    reports = project.reports_dir if project is not None else root / "reports"
    yield from examine_project(root, root / STATE_DIR, reports)
    settings = config.cache if config is not None else CacheSettings()
    shared = settings.dir or user_cache_dir(os.environ, sys.platform) or STATE_DIR
    yield from examine_cache(root / shared, settings.max_bytes)
    yield from examine_shared(settings, os.environ)
    service, running = _service()
    yield service
    yield from examine_ports()
    if config is None:
        return
    it = options
    devices = devices_of(config, Filters(it.devices, it.groups, it.chips, it.tags))
    if isinstance(devices, Failure):  # said already of deploy.toml
        return
    shelf = user_shelf(root / STATE_DIR)
    yield from examine_devices(root, config, devices, shelf, probe=probe, service=running)


def _configured(root: Path, options: Options) -> tuple[list[DoctorFinding], DeployConfig | None, Project | None]:
    """About deploy.toml and dodo.py; what deploy.toml says, as far as that can be read."""
    path = root / CONFIG_FILE
    if not os.path.lexists(path):
        hint = "run `doit init` in the directory of a project, or change into it"
        return [bad("config", f"there is no {CONFIG_FILE} in {root}", hint)], None, None
    found = list(_tasks_file(root))
    project = load_project(options, root)
    if isinstance(project, Project):
        config = project.config
        kind, chip = config.toolchain.kind, config.toolchain.chip
        fact = f"{CONFIG_FILE} is in order: {config.project.name}, toolchain {kind}"
        firmware = f", {config.firmware.kind} firmware for {chip}" if config.firmware is not None else ""
        return [ok("config", fact + firmware), *found], config, project
    try:
        text_alone = parse_config(read_text(path), profile=options.profile)
    except (OSError, UnicodeDecodeError):
        text_alone = project
    if isinstance(text_alone, Failure) or not text_alone.prebuilt.build:
        fact = f"{project.where}: {project.message}"
        usable = None if isinstance(text_alone, Failure) else text_alone
        return [bad("config", fact, project.hint), *found], usable, None
    # What is wrong is the firmware, and a deploy builds it before it looks.
    words = " ".join(text_alone.prebuilt.build)
    told = note("config", f"{CONFIG_FILE} is in order; nothing is built yet, and a deploy runs `{words}` first")
    return [told, *found], text_alone, None


def _tasks_file(root: Path) -> Iterator[DoctorFinding]:
    if not (root / TASKS_FILE).exists():
        hint = f"create {TASKS_FILE} with the line `from pipeline.tasks import *`"
        yield bad("tasks", f"there is no {TASKS_FILE}, from which doit takes the tasks", hint)


def _service() -> tuple[DoctorFinding, bool]:
    """About the resident service, and whether it runs."""
    try:
        connection = Connection.open()
    except NoService as error:
        if error.silent:
            return ok("service", "none runs: deploys open ports themselves"), False
        return warning("service", str(error), "restart it with `doit serve`, or end it with `doit serve --stop`"), False
    version = connection.welcome.header.get("version", "?")
    connection.close()
    return ok("service", f"version {version} runs and owns the ports (`doit serve --status`)"), True

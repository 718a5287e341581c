"""One project: where it lies, what `deploy.toml` and the command line say of it, and its directories.

Does not know toolchains, engines, boards or doit. Invariant: making one reads `deploy.toml` and what that names of the
firmware; it opens no port, and starts nothing but the build of a given firmware, where the options ask for work.
"""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cache.durable import read_text
from cache.location import user_cache_dir
from pipeline.chips import VIRTUAL_CHIPS
from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig, DeviceConfig, Prebuilt, Verify
from pipeline.config.values import check_value
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Partition
from pipeline.run.options import Options

if TYPE_CHECKING:
    from pipeline.config.values import Problem
    from pipeline.formats.manifests import Firmware
    from pipeline.formats.placement import Placement

CONFIG_FILE = "deploy.toml"
STATE_DIR = ".deploy"


class Project:
    """`profile` and `devices` are those that `options` select; `text` is what stood in deploy.toml. Make it with
    `load_project`."""

    def __init__(
        self,
        root: Path,
        text: str,
        config: DeployConfig,
        profile: str,
        devices: tuple[DeviceConfig, ...],
        options: Options,
    ) -> None:
        self._text = text
        self.root = root
        self.config = config
        self.profile = profile
        self.devices = devices
        self.options = options
        self.state_dir = root / STATE_DIR
        self.devices_dir = self.state_dir / "devices.v1"
        """Journals of boards, and the MAC of each device."""

    @cached_property
    def table(self) -> tuple[Partition, ...]:
        """The partition table. Raises ConfigError when it is missing or wrong."""
        from pipeline.toolchain.placements import read_table

        return read_table(self.root, self.config)

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """Where everything goes that goes to flash. Raises ConfigError when something has no place there."""
        from pipeline.toolchain.placements import place_all

        return place_all(self.root, self.config, self.table)

    @property
    def cache_dir(self) -> Path:
        """Where results are stored: `[cache] dir`, else what all projects of this user share, else our own place."""
        shared = user_cache_dir(os.environ, sys.platform)
        return self.root / (self.config.cache.dir or shared or STATE_DIR)

    @property
    def reports_dir(self) -> Path:
        """`DEPLOY_REPORT_DIR`, else `[reports] dir`."""
        return self.root / (os.environ.get("DEPLOY_REPORT_DIR") or self.config.reports.dir)

    def reload(self) -> Failure | None:
        """Look again at what the build has made by now; why that cannot be used."""
        found = load_project(self.options._replace(builds=False), self.root)
        if isinstance(found, Failure):
            return found
        self.config, self.devices = found.config, found.devices
        for name in ("table", "placements"):
            self.__dict__.pop(name, None)
        return None

    def config_moved(self) -> bool:
        """Does deploy.toml say something else than when it was loaded?"""
        try:
            return parse_config(read_text(self.root / CONFIG_FILE)) != parse_config(self._text)
        except (OSError, UnicodeDecodeError):
            return True


def _config_failure(where: str, message: str, hint: str | None = None) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def _wrong_port(text: str, config: DeployConfig) -> Failure | None:
    """The first virtual port that asks for something that it cannot have, or for a chip that no virtual board is."""
    for device in config.devices:
        if device.is_virtual and device.chip not in VIRTUAL_CHIPS:
            where = f"{CONFIG_FILE}: device {device.name}"
            fact = f"the port is '{device.port}', and there is no virtual board of the chip {device.chip}"
            return _config_failure(where, fact, f"set `port`, or use one of {', '.join(VIRTUAL_CHIPS)}")
        if not device.is_virtual or device.port == "virtual:":
            continue
        from pipeline.device.ports import planted_faults
        from pipeline.formats.toml_positions import locate

        found = planted_faults(device.port)
        if isinstance(found, tuple):
            line, column = locate(text).value(("device", device.name, "port"))
            return _config_failure(f"{CONFIG_FILE}:{line}:{column}", *found)
    return None


def _firmware(root: Path, text: str, section: Prebuilt, options: Options) -> Firmware | Problem | Failure | None:
    """What `[prebuilt]` names, built first where the command line asks for work and the section says how; None while
    the statements of ninja that make it have not run."""
    config = parse_config(text)
    if not isinstance(config, Failure) and config.is_ninja:
        from pipeline.toolchain.ninja_firmware import firmware_files

        files = firmware_files(root, section)
        if not files or not all((root / path).is_file() for path in files):
            return None
    if section.build and options.builds:
        from pipeline.formats.toml_positions import locate
        from pipeline.run.build_first import build_first

        line, column = locate(text).value(("prebuilt", "build"))
        where = f"{CONFIG_FILE}:{line}:{column}"
        failure = build_first(root, root / STATE_DIR, section.build, where, to_stderr=options.json)
        if failure is not None:
            return failure
    from pipeline.toolchain.placements import find_firmware

    return find_firmware(root, section, _made_by_actions(text))


def _configure(root: Path, text: str, options: Options) -> Failure | None:
    """Let the manifest of ninja be made where there is none, and the command line asks for work."""
    config = parse_config(text)
    if isinstance(config, Failure) or not config.is_ninja or not options.builds:
        return None
    from pipeline.toolchain.ninja_build import MANIFEST, configure_command

    argv = configure_command(config)
    if not argv or (root / config.ninja.directory / MANIFEST).exists():
        return None
    from pipeline.run.build_first import build_first

    return build_first(root, root / STATE_DIR, argv, CONFIG_FILE, to_stderr=options.json)


def _made_by_actions(text: str) -> set[str]:
    """Outputs of the `[[action]]` tables of a text that was checked."""
    import tomllib

    return {path for action in tomllib.loads(text).get("action", []) for path in action["outputs"]}


def load_project(options: Options, root: Path | None = None) -> Project | Failure:
    """The project in `root` (default: the current directory), or why `deploy.toml` cannot be used."""
    root = (root or Path.cwd()).resolve()
    try:
        text = read_text(root / CONFIG_FILE)
    except FileNotFoundError:
        return fail(
            FailureCategory.CONFIG_ERROR,
            stage=None,
            where=CONFIG_FILE,
            message="there is no deploy.toml in this directory",
            hint="create one, or change into the directory of your project",
        )
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"it is not UTF-8 ({error})"
        return _config_failure(CONFIG_FILE, f"cannot be read: {reason}", "make it a readable file in UTF-8")
    unconfigured = _configure(root, text, options)
    if unconfigured is not None:
        return unconfigured
    config = parse_config(text, find_firmware=lambda section: _firmware(root, text, section, options))
    if isinstance(config, Failure):
        return config
    if options.verify:
        wrong = check_value(("verify", "level"), options.verify)
        if wrong is not None:
            return _config_failure("--verify", wrong.message, wrong.hint)
        config = config._replace(verify=Verify(options.verify))
    profile = config.profile(options.profile or config.project.profile)
    selected = config.selected(options.devices or options.named, options.groups)
    for failure in (_wrong_port(text, config), profile, selected):
        if isinstance(failure, Failure):
            return failure
    assert not isinstance(profile, Failure) and not isinstance(selected, Failure)
    return Project(root, text, config, profile.name, selected, options)

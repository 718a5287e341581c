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
from pipeline.config.reader import built_by_ninja, parse_config
from pipeline.config.schema import DeployConfig, DeviceConfig, Prebuilt, Verify
from pipeline.config.selection import Filters, devices_of, profile_named
from pipeline.config.values import NINJA_KINDS, check_value
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.run.kept_text import KeptText
from pipeline.run.options import Options

if TYPE_CHECKING:
    from pipeline.config.values import Problem
    from pipeline.flash_model import Partition
    from pipeline.formats.manifests import Firmware
    from pipeline.formats.placement import Placement

CONFIG_FILE = "deploy.toml"
STATE_DIR = ".deploy"
MOST_BOARDS = 999


class Project:
    """`config` is deploy.toml as `profile` means it, `text` what stood there, `devices` those that `options` select and
    that get this profile's build. Make it with `load_project`."""

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
        self.variants: tuple[Project, ...] = (self,)
        """This one and those of the other profiles that the selected devices need, in the order of the devices."""
        self.is_usual = True
        """Is this what a command line that names no device would build?"""
        self.given_build = ""
        """How the build of a given firmware went: `skipped: PROOF` or `ran: REASON`; empty where there is none."""
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
    def all_devices(self) -> tuple[DeviceConfig, ...]:
        """Every selected device, whatever its profile, in the file's order."""
        chosen = {device.name: device for variant in self.variants for device in variant.devices}
        return tuple(chosen[device.name] for device in self.config.devices if device.name in chosen)

    @property
    def engine_dir(self) -> Path:
        """What the engine remembers. One with sections of its own declares other actions, and two of a run would write
        over each other, so that only the usual build has the project's own."""
        shared = not self.config.own and self.profile == (self.options.profile or self.config.project.profile)
        return self.state_dir if shared else self.state_dir / "profiles" / self.profile

    @property
    def selection(self) -> str:
        """The name under which the fast path remembers this build: as the command line has it, if that selects it."""
        return self.options.profile if self.is_usual else f"@{self.profile}"

    @property
    def cache_dir(self) -> Path:
        """Where results are stored: `[cache] dir`, else what all projects of this user share, else our own place."""
        shared = user_cache_dir(os.environ, sys.platform)
        return self.root / (self.config.cache.dir or shared or STATE_DIR)

    @property
    def reports_dir(self) -> Path:
        """`DEPLOY_REPORT_DIR`, else `[reports] dir`."""
        return self.root / (os.environ.get("DEPLOY_REPORT_DIR") or self.config.reports.dir)

    def mac_file(self, device: DeviceConfig) -> Path:
        """Where the MAC lies of the board that this device was last."""
        return self.devices_dir / f"{device.name}.mac"

    def last_mac(self, device: DeviceConfig) -> str:
        """The MAC that this device must have: of the configuration, else of the board that its loader named last."""
        if device.mac:
            return device.mac
        try:
            return read_text(self.mac_file(device)).strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def reload(self) -> Failure | None:
        """Look again at what the build has made by now; why that cannot be used."""
        loaded = load_project(self.options._replace(builds=False), self.root)
        if isinstance(loaded, Failure):
            return loaded
        found = next((variant for variant in loaded.variants if variant.profile == self.profile), loaded)
        self.config, self.devices = found.config, found.devices
        for name in ("table", "placements"):
            self.__dict__.pop(name, None)
        return None

    def is_build_proven(self) -> bool:
        """Is it known what the command of `[prebuilt] build` read, and made?"""
        from pipeline.toolchain.build_proof import BuildProof

        return BuildProof(self.root, self.state_dir, self.config.prebuilt).watched() is not None

    def keep_text(self) -> None:
        """Let the next run know what deploy.toml means. The lock must be held."""
        KeptText(self.state_dir).keep(self._text.removeprefix("\ufeff"))

    def config_moved(self) -> bool:
        """Does deploy.toml say something else than when it was loaded?"""
        try:
            return read_text(self.root / CONFIG_FILE) != self._text and self._means_something_else()
        except (OSError, UnicodeDecodeError):
            return True

    def _means_something_else(self) -> bool:
        import tomllib

        try:
            return tomllib.loads(read_text(self.root / CONFIG_FILE)) != tomllib.loads(self._text)
        except tomllib.TOMLDecodeError:
            return True


def _option_failure(root: Path, options: Options) -> Failure | None:
    """Numbers and files of the command line."""
    for name, text in (("workers", options.workers), ("canary", options.canary)):
        if text and not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_BOARDS):
            fact = f"is '{text}', which is no number from 1 to {MOST_BOARDS}"
            return _config_failure(f"--{name}", fact, f"write it like --{name} 4")
    for name, text, ending in (("trace", options.trace, "json"), ("junit", options.junit, "xml")):
        if text and (root / text).is_dir():
            hint = f"name a file, such as --{name} {text.rstrip('/')}/run.{ending}"
            return _config_failure(f"--{name}", f"is '{text}', which is a directory", hint)
    return None


def _config_failure(where: str, message: str, hint: str | None = None) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def _wrong_port(text: str, config: DeployConfig) -> Failure | None:
    """The first virtual port that asks for something that it cannot have."""
    for device in config.devices:
        if not device.is_virtual or device.port == "virtual:":
            continue
        from pipeline.device.ports import planted_faults
        from pipeline.formats.toml_positions import locate

        found = planted_faults(device.port)
        if isinstance(found, tuple):
            line, column = locate(text).value(("device", device.name, "port"))
            return _config_failure(f"{CONFIG_FILE}:{line}:{column}", *found)
    return None


def _firmware(
    root: Path, text: str, section: Prebuilt, options: Options, profile: str, notes: list[str]
) -> Firmware | Problem | Failure | None:
    """What `[prebuilt]` names, built first where the command line asks for work and the section says how; None while
    the statements of ninja that make it have not run. `notes` receives how that build went."""
    if built_by_ninja(text, profile):
        from pipeline.toolchain.ninja_firmware import firmware_files

        files = firmware_files(root, section)
        if not files or not all((root / path).is_file() for path in files):
            return None
    from pipeline.toolchain.placements import find_firmware

    made = _made_by_actions(text)
    if not section.build or not options.builds:
        return find_firmware(root, section, made)
    from pipeline.formats.toml_positions import locate
    from pipeline.run.build_first import GivenBuildPlace, given_build

    found = locate(text)
    below = ("profile", profile, "prebuilt", "build")
    line, column = found.value(below if below in found.values else below[2:])
    place = GivenBuildPlace(root, root / STATE_DIR, f"{CONFIG_FILE}:{line}:{column}", options.json)
    firmware, note = given_build(place, section, lambda: find_firmware(root, section, made))
    notes.append(note)
    return firmware


def _configure(root: Path, text: str, options: Options) -> Failure | None:
    """Let the manifest of ninja be made where there is none, or by another command, and work is asked for."""
    named = any(kind in text for kind in NINJA_KINDS) or "\\" in text  # a word can be written with escapes
    if not options.builds or not named:
        return None
    config = parse_config(text, profile=options.profile)
    if isinstance(config, Failure) or not config.is_ninja:
        return None
    from pipeline.toolchain.ninja_build import due_configuration, remember_configured

    argv = due_configuration(root, root / STATE_DIR, config)
    if isinstance(argv, Failure) or not argv:
        return argv if isinstance(argv, Failure) else None
    from pipeline.run.build_first import build_first

    failure = build_first(root, root / STATE_DIR, argv, CONFIG_FILE, to_stderr=options.json)
    if failure is None:
        remember_configured(root / STATE_DIR, config)
    return failure


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
    return _ProjectReading(root, text, options).project()


class _ProjectReading:
    """From the text of a deploy.toml to a project, with a variant for each profile that the selected devices need."""

    def __init__(self, root: Path, text: str, options: Options) -> None:
        self._root = root
        self._text = text
        self._options = options
        self._notes: list[str] = []

    def project(self) -> Project | Failure:
        """The project, or what is wrong."""
        usual = _option_failure(self._root, self._options) or self._config(self._options.profile)
        if isinstance(usual, Failure):
            return usual
        it = self._options
        selected = devices_of(usual, Filters(it.devices or it.named, it.groups, it.chips, it.tags))
        known = profile_named(usual, it.profile or usual.project.profile)
        failures = (_wrong_port(self._text, usual), known, selected)
        for failure in failures:
            if isinstance(failure, Failure):
                return failure
        assert not isinstance(selected, Failure)
        names = [device.name for device in selected]
        found: list[Project] = []
        profiles = [device.profile for device in selected] or [it.profile or usual.project.profile]
        for profile in dict.fromkeys(profiles):
            config = usual if profile == usual.variant else self._config(profile)
            wrong = config if isinstance(config, Failure) else _wrong_port(self._text, config)
            if wrong is not None:
                return wrong
            assert not isinstance(config, Failure)
            devices = tuple(d for d in config.devices if d.name in names and d.profile == profile)
            found.append(Project(self._root, self._text, config, profile, devices, it))
            found[-1].is_usual = not usual.devices or profile == usual.default_device.profile
        for project in found:
            project.variants = tuple(found)
            project.given_build = "; ".join(dict.fromkeys(self._notes))
        return found[0]

    def _config(self, profile: str) -> DeployConfig | Failure:
        """The text as a profile means it; `""`: as the project's."""
        it = self._options

        def find_firmware(section: Prebuilt) -> Firmware | Problem | Failure | None:
            return _firmware(self._root, self._text, section, it, profile, self._notes)

        read = KeptText(self._root / STATE_DIR).read
        for_all = bool(it.profile)
        config = parse_config(self._text, find_firmware=find_firmware, profile=profile, for_all=for_all, read=read)
        if isinstance(config, Failure) or not it.verify:
            return config
        wrong = check_value(("verify", "level"), it.verify)
        if wrong is not None:
            return _config_failure("--verify", wrong.message, wrong.hint)
        return config._replace(verify=Verify(it.verify))

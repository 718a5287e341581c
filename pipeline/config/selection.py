"""Which of a configuration's devices, and which profile, a command line names.

Knows names and filters, not options or where they come from. Invariant: whoever asks for what is not there learns what
is, and a selection that is not a failure is not empty, but in a project without devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig, DeviceConfig, Profile
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.text import did_you_mean


class Filters(NamedTuple):
    """Which devices: those that every filter lets pass; a filter without a value lets all pass. Several values of one
    filter are alternatives."""

    device: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    chip: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()

    def accept(self, device: DeviceConfig) -> bool:
        """Does `device` pass them all?"""
        has = {"device": {device.name}, "group": device.groups, "chip": {device.chip}, "tag": device.tags}
        return all(not wanted or not set(wanted).isdisjoint(has[name]) for name, wanted in self._asdict().items())


def device_named(config: DeployConfig, name: str) -> DeviceConfig | Failure:
    """The device of this name; a config_error with "did you mean" otherwise."""
    found = next((device for device in config.devices if device.name == name), None)
    return found or _unknown(config, "device", name, [device.name for device in config.devices])


def profile_named(config: DeployConfig, name: str) -> Profile | Failure:
    """The profile of this name; a config_error with "did you mean" otherwise."""
    return config.profiles.get(name) or _unknown(config, "profile", name, config.profiles)


def devices_of(config: DeployConfig, filters: Filters) -> tuple[DeviceConfig, ...] | Failure:
    """The devices that `filters` accept and that are not disabled, in the file's order; the default device when
    nothing is asked for. A value that nobody has, and filters that leave nothing, are a config_error."""
    if not config.devices and not any(filters):
        return ()  # a program for this machine
    if not any(filters):
        chosen: tuple[DeviceConfig, ...] = (config.default_device,)
    else:
        wrong = _unknown_value(config, filters)
        if wrong is not None:
            return wrong
        chosen = tuple(device for device in config.devices if filters.accept(device))
    enabled = tuple(device for device in chosen if device.enabled)
    return enabled or _none_left(config, filters, chosen)


def _unknown_value(config: DeployConfig, filters: Filters) -> Failure | None:
    known = {
        "device": [device.name for device in config.devices],
        "group": sorted({group for device in config.devices for group in device.groups}),
        "chip": sorted({device.chip for device in config.devices}),
        "tag": sorted({tag for device in config.devices for tag in device.tags}),
    }
    for name, wanted in filters._asdict().items():
        for value in wanted:
            if value not in known[name]:
                return _unknown(config, name, value, known[name])
    return None


def _none_left(config: DeployConfig, filters: Filters, disabled: Sequence[DeviceConfig]) -> Failure:
    asked = " ".join(f"--{name} {value}" for name, wanted in filters._asdict().items() for value in wanted)
    message = f"{config.path} has no device that is all of {asked}"
    hint = "leave out one of the filters: a device has to pass them all"
    if disabled:
        names = ", ".join(f"'{device.name}'" for device in disabled)
        message, hint = f"no device is left: {names} has enabled = false in {config.path}", "set it to true"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=asked or "deploy", message=message, hint=hint)


def _unknown(config: DeployConfig, what: str, name: str, known: Iterable[str]) -> Failure:
    known = list(known)
    hint = f"choose one of {', '.join(known)}" if known else f"add it to {config.path}: no {what} is declared there"
    message = f"{config.path} has no {what} '{name}'{did_you_mean(name, known)}" if name else f"names no {what}"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=f"--{what}", message=message, hint=hint)

"""Hotplate's pytest plugin, as every pytest run beside an installed Hotplate loads it: three options and nothing else.

The fixtures and the collection of scenarios (`pipeline/livetest/plugin.py`) are registered only where there is a
`deploy.toml`. A module of its own, because importing `pipeline` takes that name, and `cache`, away from a project that
has modules of its own so called. Invariant: a run in any other project imports nothing more, defines no fixture, no
short option and no warning.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

CONFIG_FILE = "deploy.toml"
NAME = "hotplate"
_SHORT = {
    "--device": ("hotplate_device", "talk to this device of deploy.toml, or to `host` (may be given several times)"),
    "--group": ("hotplate_group", "talk to the devices of this group of deploy.toml"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The long names, which nobody else has."""
    group = parser.getgroup(NAME, "hotplate: tests on ESP32 boards")
    for short, (dest, text) in _SHORT.items():
        group.addoption(f"--hotplate-{short[2:]}", dest=dest, action="append", default=[], metavar="NAME", help=text)
    group.addoption(
        "--hotplate-lease-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long a test waits for a board that another process uses",
    )
    group.addoption("--hotplate-no-deploy", action="store_true", help="test the firmware that runs, whatever it is")
    group.addoption("--hotplate-python-only", action="store_true", help="collect no scenarios in TOML")
    text = "like -m, of markers that need not be registered"
    group.addoption("--hotplate-tags", default="", metavar="EXPRESSION", help=text)
    parser.addini("hotplate_on_request", "skip tests on devices unless a device or group is named", "bool", False)


def project_of(config: pytest.Config) -> Path | None:
    """The Hotplate project of this run, if it is one."""
    places = (config.invocation_params.dir, config.rootpath)
    return next((place for place in places if (place / CONFIG_FILE).is_file()), None)


@pytest.hookimpl(trylast=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> None:
    """The short names, and the fixtures. Here every plugin and conftest has said what options it has: theirs stay."""
    if project_of(early_config) is None:
        return
    group = parser.getgroup(NAME)
    taken = {name for known in parser._groups for option in known.options for name in option.names()}
    for short, (dest, text) in _SHORT.items():
        if short not in taken:
            try:
                group.addoption(short, dest=dest, action="append", default=[], metavar="NAME", help=text)
            except (ValueError, argparse.ArgumentError):
                continue  # a plugin's that is not to be seen here
    from pipeline.livetest import plugin

    early_config.pluginmanager.register(plugin, f"{NAME}-fixtures")

"""What `deploy.toml` says of a device's times, updates and commands, and of actions' commands: told when it is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.device_values import TIMES
from pipeline.config.reader import parse_config
from pipeline.config.schema import ActionConfig, DeployConfig
from pipeline.config.values import TIMINGS
from pipeline.model import Failure
from pipeline.run.options import Options
from pipeline.run.project import load_project
from pipeline.toolchain.products import in_profile
from tests import given_firmware as given
from virtualboard.timing import BadTiming, Timing, parse_timing

ROOT = Path(__file__).parents[2]
TEXT = """\
[project]
name = "x"
[toolchain]
kind = "prebuilt"
[prebuilt]
directory = "build"
[device.bench]
"""
ACTION = '[[action]]\nname = "a"\n'


def told(text: str) -> str:
    """The first mistake without its place, "" if there is none; the hint begins with a small letter."""
    found = parse_config(text)
    if isinstance(found, DeployConfig):
        return ""
    assert isinstance(found, Failure)
    assert found.hint and found.hint[0].islower() and found.where.startswith("deploy.toml:")
    return found.message


# --- times of the virtual board ---------------------------------------------------------------

OVERRIDES = (
    *("latency_s=0.016", "md5_s_per_mb=0.4,rom_s=0", "line_bytes_per_s=1e9", "paced=1", "app_s=3600", "rom_s= 1 "),
    *("", "x=1", "latency=1", "latency_s", "latency_s=", "latency_s=x", "latency_s=-1", "rom_s=nan", "rom_s=inf"),
    *("rom_s=3600.1", "line_bytes_per_s=1.1e9", "rom_s=1,", "rom_s=1;app_s=1", "rom_s=1=2", "ROM_S=1", "jump_s=0x1"),
)


def test_the_times_are_those_of_the_virtual_board() -> None:
    assert tuple(TIMES) == Timing._fields


@pytest.mark.parametrize("profile", TIMINGS)
@pytest.mark.parametrize("override", OVERRIDES)
def test_a_file_takes_the_times_that_the_board_takes(profile: str, override: str) -> None:
    value = f"{profile},{override}"
    try:
        parse_timing(value)
        takes = True
    except BadTiming:
        takes = False
    message = told(f'{TEXT}timing = "{value}"\n')
    assert (message == "") == takes, message
    assert takes or message.startswith(f"'device.bench.timing' is '{value}', and '")


def test_a_misspelt_time_is_told_with_its_place() -> None:
    found = parse_config(f'{TEXT}timing = "instant,latencys=1"\n')
    assert isinstance(found, Failure)
    assert found.line() == (
        "deploy.toml:8:10: error: 'device.bench.timing' is 'instant,latencys=1', and 'latencys' is no time of a "
        "virtual board; did you mean 'latency_s'?"
    )


# --- updates without a cable ------------------------------------------------------------------


@pytest.mark.parametrize(
    "ota",
    [
        *("", "/dev/ttyUSB0", "COM3", "virtual:", "socket://rack:4001", "rfc2217://rack:4001", "labgrid://esp-1"),
        *("espota://esp", "espota://esp:8266", "espota://secret@192.168.1.20", "espota://a%3Ab@esp", "hwgrep://x"),
        *("http://192.168.1.10", "http://192.168.1.10:8000", "http://192.168.1.10:0", "http://build-pc/"),
    ],
)
def test_a_way_to_update(ota: str) -> None:
    assert told(f'{TEXT}port = "/dev/ttyUSB0"\nota = "{ota}"\nota_call = ""\n') == ""


@pytest.mark.parametrize(
    ("ota", "fact"),
    [
        ("ftp://x", "and 'ftp://' is no way to update"),
        ("espotta://x", "and 'espotta://' is no way to update; did you mean 'espota'?"),
        ("https://192.168.1.10", "but updates that a device pulls are offered over HTTP alone"),
        ("192.168.1.20", "which is no port, and does not say how the device takes updates"),
        ("espota://", "which names no device, or a port that is none from 1 to 65535"),
        ("espota://x:99999", "which names no device, or a port that is none from 1 to 65535"),
        ("espota://x:0", "which names no device, or a port that is none from 1 to 65535"),
        ("espota://x y", "which names no device, or a port that is none from 1 to 65535"),
        ("espota://[::1", "which names no device, or a port that is none from 1 to 65535"),
        ("espota://@x", "whose password is empty"),
        ("espota://[::1]", "but updates go over IPv4"),
        ("espota://x/app", "with more behind the port"),
        ("http://", "which names no address, or a port that is none up to 65535"),
        ("http://x:65536", "which names no address, or a port that is none up to 65535"),
        (
            "http://192.168.1.20/update",
            "but only an address and a port can be said: the device pulls from this machine",
        ),
        ("http://me@192.168.1.10", "but only an address and a port can be said: the device pulls from this machine"),
        ("http://0.0.0.0", "which is no address that a device could ask"),
        ("http://[::1]:80", "but updates go over IPv4"),
        ("socket://x", "which names no host with a port from 1 to 65535"),
        (" ", ""),
    ],
)
def test_what_can_be_no_way_to_update_is_told_before_anything_is_built(ota: str, fact: str) -> None:
    message = told(f'{TEXT}port = "/dev/ttyUSB0"\nota = "{ota}"\n')
    assert message == (f"'device.bench.ota' is '{ota}', {fact}" if fact else "'device.bench.ota' is empty")


def test_a_password_is_not_repeated() -> None:
    found = parse_config(f'{TEXT}ota = "espota://me:hush@192.168.1.20"\n')
    assert isinstance(found, Failure) and "hush" not in f"{found.line()}{found.hint}"
    assert (
        found.message
        == "'device.bench.ota' is 'espota://...@192.168.1.20', but this protocol knows a password and no user"
    )


def test_a_call_that_nobody_would_make() -> None:
    call = f'{TEXT}ota_call = "ota.url"\n'
    assert told(call) == "'device.bench.ota_call' tells a device where to pull from, but `ota` is ''"
    assert told(f'{call}ota = "http://192.168.1.10"\n') == ""


# --- placeholders -----------------------------------------------------------------------------


def action(argv: str, more: str = "", outputs: str = '["build/x"]') -> str:
    return told(f'{TEXT}{ACTION}argv = {argv}\noutputs = {outputs}\ninputs = ["a.txt"]\n{more}')


@pytest.mark.parametrize(
    "argv",
    [
        '["pack", "{in}", "-o{out}", "--profile={profile}"]',
        '["pack", "{{name}}", "{3}", "{}", "{a,b}", "{ print }"]',
        """["python", "-c", "print(f'{x}', file=open('{out}', 'w'))"]""",
        """["sh", "-c", "awk '{print}' {in} | sed s/${input}/$HOME/ > {out}"]""",
        '["sed", "s/\\\\p{Lu}/x/", "${name}"]',
    ],
)
def test_braces_that_are_no_placeholders(argv: str) -> None:
    assert action(argv) == ""


@pytest.mark.parametrize(
    ("argv", "word", "place", "meant"),
    [
        ('["pack", "{input}"]', "{input}", "{input}", "; did you mean '{in}'?"),
        ('["pack", "-o{outputs}"]', "-o{outputs}", "{outputs}", "; did you mean '{out}'?"),
        ('["pack", "{in}", "--to={Out}"]', "--to={Out}", "{Out}", "; did you mean '{out}'?"),
        ('["pack", "build/{profil}/a"]', "build/{profil}/a", "{profil}", "; did you mean '{profile}'?"),
        ('["pack", "{device}"]', "{device}", "{device}", ""),
        ('["bash", "-c", "cat {inputs} > {out}"]', "cat {inputs} > {out}", "{inputs}", "; did you mean '{in}'?"),
    ],
)
def test_an_unknown_placeholder_of_a_command(argv: str, word: str, place: str, meant: str) -> None:
    assert action(argv) == f"'action.0.argv' is '{word}', and '{place}' is no placeholder here{meant}"


def test_its_place_is_that_of_the_word() -> None:
    found = parse_config(f'{TEXT}{ACTION}argv = ["pack", "{{input}}"]\noutputs = ["build/x"]\n')
    assert isinstance(found, Failure) and found.where == "deploy.toml:10:17"


@pytest.mark.parametrize(
    ("more", "outputs", "message"),
    [
        (
            'depfile = "{out}.d"',
            '["build/x"]',
            "'action.0.depfile' is '{out}.d', and '{out}' is no placeholder in a path",
        ),
        (
            "",
            '["build/{profle}/x"]',
            "'action.0.outputs' has an element that is 'build/{profle}/x', and '{profle}' is no placeholder in a path"
            "; did you mean '{profile}'?",
        ),
        ('depfile = "build/{profile}/x.d"', '["build/{profile}/x"]', ""),
    ],
)
def test_a_placeholder_of_a_path(more: str, outputs: str, message: str) -> None:
    assert action('["pack", "a"]', more, outputs) == message


def test_a_depfile_that_is_not_declared() -> None:
    assert action('["pack", "-MF{depfile}"]') == "'-MF{depfile}' stands for a depfile, but the action names none"


def test_the_commands_of_a_device() -> None:
    power = f'{TEXT}port = "COM3"\npower = ["uhubctl", "{{prot}}"]\n'
    assert told(power) == (
        "'device.bench.power' has an element that is '{prot}', and '{prot}' is no placeholder here"
        "; did you mean '{port}'?"
    )
    assert told(power.replace("prot", "port")) == ""
    reset = f'{TEXT}port = "COM3"\nreset = "command:python reset.py {{Mode}}"\n'
    assert told(reset) == (
        "'device.bench.reset' has an element that is '{Mode}', and '{Mode}' is no placeholder here"
        "; did you mean '{mode}'?"
    )
    assert told(reset.replace("Mode", "mode")) == ""


def test_what_is_usual_loads_none_of_these_rules() -> None:
    text = f'{TEXT}ota = ""\ntiming = "esp32-uart"\n{ACTION}argv = ["pack", "{{in}}", "{{out}}"]\n'
    text += 'inputs = ["a/{profile}"]\noutputs = ["build/{profile}/x"]\n'
    program = (
        "import sys; from pipeline.config.reader import parse_config, DeployConfig\n"
        f"assert isinstance(parse_config({text!r}), DeployConfig)\n"
        "print([m for m in sys.modules if m.endswith(('device_values', 'placeholders'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_program_that_an_action_starts_may_be_of_the_profile() -> None:
    declared = ActionConfig("a", ("pack",), ("build/{profile}/x",), tools=("build/{profile}/gen", "xz"))
    assert in_profile(declared, "fast") == ActionConfig(
        "a", ("pack",), ("build/fast/x",), tools=("build/fast/gen", "xz")
    )


def test_a_fault_of_a_board_that_another_profile_builds_for(tmp_path: Path) -> None:
    """Whichever device is selected: the file is wrong."""
    more = 'default = true\n[profile.a]\n[profile.b]\n[device.desk]\nprofile = "b"\nport = "virtual:?fault=panik"\n'
    text = TEXT + more
    (tmp_path / "deploy.toml").write_text(text.replace('name = "x"', 'name = "x"\nprofile = "a"'))
    given.esp_idf(tmp_path / "build", "esp32c3")
    found = load_project(Options(), tmp_path)
    assert isinstance(found, Failure)
    assert found.line().startswith("deploy.toml:14:8: error: the fault cannot be planted: 'panik' is no")

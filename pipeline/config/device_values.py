"""What the longer values of a `[device.NAME]` may be: URLs of ports and of updates, times of the virtual board.

Rules only, as those of `values.py`, which asks here when a value is more than a word: what most projects write costs no
import. Does not open ports, resolve names or know the environment; how a virtual board takes its times is the board's
to say (`virtualboard/timing.py`; a test holds `TIMES` against it). Invariant: what passes here can work on some
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.text import did_you_mean

Finding = tuple[str, str] | None
"""As in `values.py`, which imports this."""

_SERVED = ("rfc2217", "socket")
"""Ports behind a server: each names its host and port."""
_OF_PYSERIAL = ("alt", "cp2110", "hwgrep", "loop", "spy")
"""Further schemes of pyserial's, which say what they need themselves."""

ESPOTA, PULLED = "espota", "http"
"""Schemes of `ota` that are no ports: Arduino's listener on the device; an address of this machine to pull from."""
_FARM = "labgrid"
"""Of `values.FARM_PORT`."""

_LONGEST_S = 3600.0
_FASTEST = 1e9
"""Bytes a second."""
TIMES: Mapping[str, float] = MappingProxyType(
    {
        "strap_delay_s": _LONGEST_S,
        "strap_timeout_s": _LONGEST_S,
        "jump_s": _LONGEST_S,
        "erase_sector_s": _LONGEST_S,
        "erase_block_s": _LONGEST_S,
        "program_page_s": _LONGEST_S,
        "md5_s_per_mb": _LONGEST_S,
        "rom_s": _LONGEST_S,
        "bootloader_s": _LONGEST_S,
        "app_s": _LONGEST_S,
        "paced": _LONGEST_S,
        "line_bytes_per_s": _FASTEST,
        "latency_s": _LONGEST_S,
        "reenumerate_s": _LONGEST_S,
    }
)
"""What can stand behind the profile of `timing`, and its highest value."""


def times_fault(value: str) -> Finding:
    """`PROFILE,KEY=VALUE...`: the overrides; the profile was looked at."""
    for override in value.split(",")[1:]:
        key, _, number = override.partition("=")
        if key not in TIMES:
            meant = did_you_mean(key, TIMES)
            return f"is '{value}', and '{key}' is no time of a virtual board{meant}", f"use one of {', '.join(TIMES)}"
        try:
            fits = 0 <= float(number) <= TIMES[key]
        except ValueError:
            fits = False
        if not fits:
            fact = f"is '{value}', and '{number}' is no number from 0 to {TIMES[key]:g} for {key}"
            return fact, f"write it like {key}=0.016"
    return None


def port_fault(value: str) -> Finding:
    """A port with a scheme. What is wrong with one pyserial would say only when the port is opened, after the build,
    and in words of its own."""
    scheme = value.partition("://")[0]
    if scheme == "jumpstarter":
        fact = (
            f"is '{value}', but boards of Jumpstarter cannot be opened by name: its serial streams carry no reset lines"
        )
        return fact, 'forward the board\'s port with `jmp`, and name that: port = "rfc2217://127.0.0.1:PORT"'
    if scheme == _FARM:
        from pipeline.formats.farm_url import BadFarmUrl, parse_farm_url

        found = parse_farm_url(value)
        return (f"is {found.fact}", found.hint) if isinstance(found, BadFarmUrl) else None
    if scheme not in (*_SERVED, *_OF_PYSERIAL):
        known = (*_SERVED, _FARM)
        fact = f"is '{value}', and '{scheme}://' is no kind of port{did_you_mean(scheme, known)}"
        return fact, f"begin it with one of {', '.join(f'{each}://' for each in known)}"
    if scheme not in _SERVED or _place(value)[1]:
        return None
    fact = f"is '{value}', which names no host with a port from 1 to 65535"
    return fact, f'write it like port = "{scheme}://rack:4001"'


def ota_fault(value: str) -> Finding:
    """Where updates go: Arduino's listener, an address to pull from, or a port. `value` has a scheme, or begins with a
    digit, which no name of a port does."""
    if "://" not in value:
        fact = f"is '{value}', which is no port, and does not say how the device takes updates"
        return fact, f'begin it with a scheme: ota = "espota://{value}" pushes to Arduino\'s listener there'
    scheme = value.partition("://")[0]
    if scheme == ESPOTA:
        return _espota_fault(value)
    if scheme == PULLED:
        return _pulled_fault(value)
    if scheme == "https":
        fact = f"is '{value}', but updates that a device pulls are offered over HTTP alone"
        return fact, 'write an address of this machine: ota = "http://192.168.1.10"'
    known = (ESPOTA, PULLED, *_SERVED)
    if scheme in (*_SERVED, *_OF_PYSERIAL, _FARM, "jumpstarter"):
        found = port_fault(value)
        return None if found is None else (found[0], found[1].replace('port = "', 'ota = "'))
    fact = f"is '{value}', and '{scheme}://' is no way to update{did_you_mean(scheme, known)}"
    return fact, f"begin it with one of {', '.join(f'{each}://' for each in known)}"


def _espota_fault(said: str) -> Finding:
    value = _without_password(said)
    hint = 'write it like ota = "espota://password@192.168.1.20:3232"'
    host, port, extra = _place(said, standard=3232)
    if not port:
        return f"is '{value}', which names no device, or a port that is none from 1 to 65535", hint
    user, at, _ = said.partition("://")[2].rpartition("@")
    if ":" in user:
        return f"is '{value}', but this protocol knows a password and no user", hint
    if at and not user:
        return f"is '{value}', whose password is empty", hint
    return _ip_fault(value, host, hint) or (None if not extra else (f"is '{value}', with more behind the port", hint))


def _pulled_fault(value: str) -> Finding:
    """An address that this machine listens on: the path is a new one in each update, and nobody logs in."""
    hint = 'write an address of this machine that the device reaches: ota = "http://192.168.1.10"'
    host, port, extra = _place(value, standard=80)
    if host and not port and value.rpartition(":")[2].strip("/") == "0":
        port = 1  # any that is free
    if not port:
        return f"is '{value}', which names no address, or a port that is none up to 65535", hint
    if extra or "@" in value:
        return f"is '{value}', but only an address and a port can be said: the device pulls from this machine", hint
    if host == "0.0.0.0":
        return f"is '{value}', which is no address that a device could ask", hint
    return _ip_fault(value, host, hint)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    said, at, place = rest.rpartition("@")
    return f"{scheme}://{'...@' if said else at}{place}"


def _ip_fault(value: str, host: str, hint: str) -> Finding:
    return (f"is '{value}', but updates go over IPv4", hint) if ":" in host else None


def _place(url: str, standard: int = 0) -> tuple[str, int, str]:
    """Host, port and what stands behind them; the port is 0 where that is no place to connect to. `standard`: the port
    where none is said."""
    from urllib.parse import urlsplit

    try:
        found = urlsplit(url)
        port = found.port
    except ValueError:  # the port is no number from 0 to 65535, or a bracket is missing
        return "", 0, ""
    host = found.hostname or ""
    if any(char.isspace() for char in found.netloc):
        host = ""
    extra = found.path.strip("/") + found.query + found.fragment
    return host, 0 if not host else standard if port is None else port, extra

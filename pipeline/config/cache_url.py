"""The URLs of `[cache] remote` and `[execution] remote`, taken apart.

Pure. Knows which schemes there are, not who speaks them. Invariant: a URL without a fault has a host, a port that can
be, and a path that can stand in a request as it is; it holds no name or password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from cache.named_tuple import NamedTuple

SCHEMES: Mapping[str, int] = MappingProxyType({"http": 80, "https": 443, "grpc": 0, "grpcs": 443})
"""Scheme -> the port that it has when none is said, 0 for none."""
REAPI = ("grpc", "grpcs")
"""Those of servers that speak the Remote Execution API."""
_AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::([0-9]{1,5}))?").fullmatch
_UNFIT = re.compile(r"[^!-~]|[?#]").search


class CacheUrl(NamedTuple):
    """`path`: `""`, or begins with a slash and ends without one."""

    scheme: str
    host: str
    port: int
    path: str = ""


def fault_of(url: str) -> tuple[str, str] | None:
    """What is wrong with it, and what to do about that."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in SCHEMES:
        return f"is '{url}', which is no URL of a shared cache", "write it like http://cache.example.com:8080"
    authority = rest.split("/", 1)[0]
    if "@" in authority:
        hint = "take them out, and put a token into HOTPLATE_CACHE_TOKEN or a line into ~/.netrc"
        return "holds a user's name or password", hint
    found = _AUTHORITY(authority)
    if found is None:
        return f"has the host '{authority}', which is none", "write a host's name, then a colon and its port"
    if not (found[2] or SCHEMES[scheme]):
        return f"is '{url}', which has no port", f"write it like {scheme}://{authority}:8980"
    if found[2] and not 1 <= int(found[2]) <= 65_535:
        return f"has the port {found[2]}", "write a port from 1 to 65535"
    if _UNFIT(rest):
        return f"is '{url}', which holds a space, '?', '#' or a letter outside of ASCII", "write the plain path"
    return None


def executor_fault_of(url: str) -> tuple[str, str] | None:
    """The same of one that must be a server of the Remote Execution API."""
    if url.partition("://")[0] not in REAPI:
        return f"is '{url}', which is no URL of an executor", "write it like grpc://builder.example.com:8980"
    return fault_of(url)


def parse_cache_url(url: str) -> CacheUrl:
    """Of a URL without a fault."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    found = _AUTHORITY(authority)
    if found is None:
        raise ValueError(f"{url} was not checked [this is a bug]")
    path = f"/{path}".rstrip("/")
    return CacheUrl(scheme, found[1].strip("[]"), int(found[2] or SCHEMES[scheme]), path)

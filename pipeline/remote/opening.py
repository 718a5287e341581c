"""From `[cache]`, `[execution]` and the environment to clients of servers.

Knows the variables, the schemes and where credentials are. Does not connect: a client does that when it is asked.
Invariant: a credential comes from the environment or from netrc, goes into the header for the host that it is for, and
appears in no message and no file.

    HOTPLATE_CACHE_TOKEN    a bearer token (`remote_token_env` gives another name); else the host's line in ~/.netrc, or
                            in the file that NETRC names
    HOTPLATE_EXECUTION      off: everything is executed here
    HOTPLATE_EXECUTION_TOKEN
                            a token, as above (`[execution] token_env`)
"""

from __future__ import annotations

import base64
import netrc
import os
import random
from collections.abc import Mapping
from pathlib import Path

from cache.remote import Remote
from pipeline.config.cache_url import REAPI, parse_cache_url
from pipeline.config.schema import CacheSettings, ExecutionConfig
from pipeline.config.values import REMOTE_MODES
from pipeline.effects.api import Clock
from pipeline.effects.executor import Executor
from pipeline.remote.http_cache import HttpCache
from pipeline.remote.wire import Endpoint

EXECUTION = "HOTPLATE_EXECUTION"
OFF = "off"


def open_remote(settings: CacheSettings, environment: Mapping[str, str], clock: Clock) -> Remote | str:
    """The client, or why the environment cannot be used, in one line. `remote_mode` may be of the environment."""
    mode = settings.remote_mode
    if mode not in REMOTE_MODES:
        return f"HOTPLATE_CACHE_MODE is '{mode}', not off, {' or '.join(REMOTE_MODES)}; the shared cache is not used"
    url = parse_cache_url(settings.remote)
    authorization = _authorization(settings.remote_token_env, url.host, environment)
    if authorization is None:
        return f"{settings.remote_token_env} holds what no token is made of; the shared cache is not used"
    if url.scheme in REAPI:
        from pipeline.remote.reapi import ReapiRemote
        from pipeline.remote.reapi_channel import server_of

        return ReapiRemote(server_of(url), clock, writes=mode == "read-write", authorization=authorization)
    endpoint = Endpoint(url.host, url.port, url.path, url.scheme == "https")
    return HttpCache(
        settings.remote,
        endpoint,
        writes=mode == "read-write",
        authorization=authorization,
        now_s=clock.now_s,
        jitter=random.Random(os.urandom(8)).random,
    )


def open_executor(settings: ExecutionConfig, environment: Mapping[str, str], clock: Clock) -> Executor | str | None:
    """Who executes commands, likewise."""
    mode = environment.get(EXECUTION, "")
    if not settings.remote or mode == OFF:
        return None
    if mode not in ("", "on"):
        return f"{EXECUTION} is '{mode}', not off or on; everything is executed here"
    url = parse_cache_url(settings.remote)
    authorization = _authorization(settings.token_env, url.host, environment)
    if authorization is None:
        return f"{settings.token_env} holds what no token is made of; everything is executed here"
    from pipeline.remote.reapi_channel import server_of
    from pipeline.remote.reapi_executor import ReapiExecutor

    return ReapiExecutor(
        server_of(url), clock, jobs=settings.jobs, platform=settings.platform, authorization=authorization
    )


def _authorization(variable: str, host: str, environment: Mapping[str, str]) -> str | None:
    """The header's value, `""` without credentials; None for a token that would break the header."""
    token = environment.get(variable, "").strip()
    if token:
        return f"Bearer {token}" if token.isascii() and token.isprintable() and " " not in token else None
    place = environment.get("NETRC", "") or (f"{environment['HOME']}/.netrc" if environment.get("HOME") else "")
    if not place or not Path(place).is_file():
        return ""
    try:
        known = netrc.netrc(place).authenticators(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return ""
    if known is None or not known[2]:
        return ""
    login, _, password = known
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()

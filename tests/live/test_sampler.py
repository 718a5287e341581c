"""The sampler over JSON-RPC: what a scenario in TOML cannot say, because it compares answers with each other."""

from __future__ import annotations

import re

from pipeline.livetest.devices import Deployed, LiveMonitor, RpcFunction


def test_the_build_that_was_deployed_answers(rpc: RpcFunction, deploy: Deployed) -> None:
    running = rpc("info")["app_elf_sha256"]
    assert deploy.app_elf_sha256 in ("", running)


def test_memory_that_was_given_back_is_free_again(rpc: RpcFunction) -> None:
    before = rpc("health")["heap"]["free"]
    rpc("module.set", {"module": "ballast", "value": 50_000})
    held = before - rpc("health")["heap"]["free"]
    rpc("module.set", {"module": "ballast", "value": 0})
    assert 50_000 <= held < 51_000
    assert rpc("health")["heap"]["free"] == before


def test_modules_say_that_they_are_enabled(monitor: LiveMonitor) -> None:
    assert monitor.expect(re.compile(r"(?P<name>\w+) enabled")).groups == {"name": "blink"}
    assert monitor.expect(re.compile(r"(?P<name>\w+) enabled")).groups == {"name": "sampler"}

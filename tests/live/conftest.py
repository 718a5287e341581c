"""The live tests need a device: `doit livetest`, or `pytest tests/live --device bench`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_user_cache() -> None:
    """Unlike the suite, live tests use the real store, and the leases that all workers share."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without a device named, the suite leaves them alone: they would deploy from this checkout."""
    del collection_path
    named = getattr(config.option, "hotplate_device", None) or getattr(config.option, "hotplate_group", None)
    return None if named else True

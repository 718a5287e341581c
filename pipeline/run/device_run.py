"""A device under the names that it had before; see `context.py`."""

from __future__ import annotations

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeviceConfig


class DeviceRun(NamedTuple):
    name: str
    config: DeviceConfig

    @property
    def where(self) -> str:
        return self.config.where

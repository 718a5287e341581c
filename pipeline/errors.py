"""The exceptions of the pipeline: only for "cannot go on".

Expected bad news (a mismatch, a dirty verdict, a failed compile) is a return value. Each exception carries a
`Failure`, so that the report can say whose fault it is and what to do.
"""

from __future__ import annotations

from pipeline.model import Failure


class DeployError(Exception):
    """Base of all: `failure` is what the report and the terminal show."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ConfigError(DeployError):
    """`deploy.toml` is missing, malformed or contradicts itself. `failure.where` is `deploy.toml:LINE:COL`."""


class ToolError(DeployError):
    """A compiler, linker or other tool is missing or cannot be used at all."""


class DeviceError(DeployError):
    """A port or a board: missing, busy, wrong, silent."""


class StoreError(DeployError):
    """The cache or the state directory cannot be used."""

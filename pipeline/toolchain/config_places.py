"""Where in `deploy.toml` a value stands, for errors that only show when files and tools are looked at.

Reads `deploy.toml` again, only when there is an error to place. Does not know what is wrong.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cache.durable import read_text
from pipeline.config.schema import DeployConfig
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory

KeyPath = tuple[str | int, ...]


def config_failure_at(root: Path, config: DeployConfig, path: KeyPath, message: str, hint: str) -> Failure:
    """A config_error at a place of deploy.toml."""
    where = config_place(root, config, path)
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def config_place(root: Path, config: DeployConfig, path: KeyPath) -> str:
    """`deploy.toml:LINE:COLUMN` of a value; the file is read again for that."""
    from pipeline.formats.toml_positions import locate

    with contextlib.suppress(OSError, UnicodeDecodeError):
        line, column = locate(read_text(root / config.path).removeprefix("\ufeff")).value(config.place(path))
        return f"{config.path}:{line}:{column}"
    return config.path

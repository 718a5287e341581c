"""The files of live tests: scenarios, pytest modules, what was observed, and results.

Reads and writes; what stands in them others know. Invariant: nothing is written half, and a file that cannot be read is
a failure that names it, or (results) as good as none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cache.durable import MOST_TEXT, read_file, write_atomic
from pipeline.config.schema import LiveTestConfig
from pipeline.errors import ConfigError
from pipeline.failures import fail
from pipeline.livetest import observed
from pipeline.livetest.scenario import Scenario, names_twice, parse_scenario
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text, parse_json
from pipeline.report.live_tests import SuiteResult, decode_suite, encode_suite

if TYPE_CHECKING:
    from pipeline.livetest.observed import Observed

RESULTS = "live.v1"


def live_files(root: Path, config: LiveTestConfig) -> list[Path]:
    """Every file below the directory of live tests but compiled Python, sorted."""
    found = (root / config.dir).rglob("*")
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def load_scenarios(root: Path, config: LiveTestConfig) -> list[Scenario] | Failure:
    """Every scenario, in the order of the files; the first that is wrong, with its place."""
    scenarios = []
    for path in live_files(root, config):
        if path.suffix != ".toml" or path.name.startswith("."):
            continue
        found = load_scenario(root, path)
        if isinstance(found, Failure):
            return found
        scenarios.append(found)
    return names_twice(scenarios) or scenarios


def load_scenario(root: Path, path: Path) -> Scenario | Failure:
    """One file."""
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    try:
        text = read_file(str(path), most=MOST_TEXT).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"it is not UTF-8 ({error})"
        message, hint = f"cannot be read: {reason}", "make it a readable file in UTF-8"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=shown, message=message, hint=hint)
    return parse_scenario(text, shown, path.stem)


def pytest_files(root: Path, config: LiveTestConfig) -> list[Path]:
    """Modules that pytest collects."""
    names = (path for path in live_files(root, config) if path.suffix == ".py")
    return [path for path in names if path.name.startswith("test_") or path.stem.endswith("_test")]


def load_observed(root: Path, config: LiveTestConfig) -> Observed | Failure:
    """What was observed until now; nothing when there is no file yet."""
    try:
        return observed.decode(read_file(str(root / config.baselines), most=MOST_TEXT), config.baselines)
    except FileNotFoundError:
        return {}
    except OSError as error:
        message, hint = f"cannot be read: {error.strerror}", "make it readable"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=config.baselines, message=message, hint=hint)


def save_observed(root: Path, config: LiveTestConfig, found: Observed) -> None:
    """Raises ConfigError."""
    path = root / config.baselines
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, observed.encode(found), durable=False)
    except OSError as error:
        message, hint = f"cannot be written: {error.strerror}", "make it writable"
        failure = fail(FailureCategory.CONFIG_ERROR, stage=None, where=config.baselines, message=message, hint=hint)
        raise ConfigError(failure) from None


def save_suite(state_dir: Path, suite: SuiteResult) -> None:
    """The newest results of a device replace those before."""
    text = json_text(encode_suite(suite), indent=1) + "\n"
    path = state_dir / RESULTS / f"{suite.kind}-{suite.device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode("utf-8", "replace"), durable=False)


def load_suites(state_dir: Path) -> Iterator[SuiteResult]:
    """Every result that can be read."""
    for path in sorted((state_dir / RESULTS).glob("*.json")):
        try:
            suite = decode_suite(parse_json(read_file(str(path))))
        except (OSError, ValueError, RecursionError):
            continue
        if suite is not None:
            yield suite

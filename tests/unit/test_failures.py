"""The failure map covers every category, once, and says the same to code, report and document."""

from __future__ import annotations

import pytest

from pipeline.failures import FAILURE_MAP, RETRYABLE_ACTIONS, UserAction, fail, failure_map_markdown
from pipeline.model import FailureCategory, Stage


def test_every_category_has_a_row_and_no_other() -> None:
    assert set(FAILURE_MAP) == set(FailureCategory)


@pytest.mark.parametrize("category", FailureCategory)
def test_a_failure_takes_its_class_from_the_map(category: FailureCategory) -> None:
    failure = fail(category, stage=None, where="deploy.toml:1:2", message="a fact")
    row = FAILURE_MAP[category]
    assert (failure.retryable, failure.user_action) == (row.retryable, row.user_action.value)
    assert failure.hint == row.hint
    assert failure.line() == "deploy.toml:1:2: error: a fact"


@pytest.mark.parametrize("category", FailureCategory)
def test_hints_are_one_line_that_starts_with_a_verb(category: FailureCategory) -> None:
    verbs = (
        "check close compare connect correct decode define find fix free hold install join make plug read report run"
    )
    verbs += " set use wait"
    hint = FAILURE_MAP[category].hint
    assert "\n" not in hint
    assert hint.split()[0] in verbs.split()


def test_retry_helps_only_where_nothing_has_to_be_changed() -> None:
    changing = {
        UserAction.FIX_CONFIG,
        UserAction.FIX_CODE,
        UserAction.INSTALL_TOOL,
        UserAction.PICK_DEVICE,
        UserAction.GRANT_PERMISSION,
        UserAction.REPORT_BUG,
    }
    assert set(UserAction) - changing == RETRYABLE_ACTIONS
    retryable = {category.value for category, row in FAILURE_MAP.items() if row.retryable}
    assert retryable == {
        "cache_error",
        "lock_timeout",
        "port_missing",
        "port_busy",
        "sync_failed",
        "write_failed",
        "verify_mismatch",
        "over_budget",
        "interrupted",
    }


def test_every_user_action_is_used() -> None:
    assert {row.user_action for row in FAILURE_MAP.values()} == set(UserAction)


def test_only_config_errors_and_failed_tests_belong_to_no_stage() -> None:
    outside = [category for category, row in FAILURE_MAP.items() if not row.stages]
    assert outside == [FailureCategory.CONFIG_ERROR, FailureCategory.TEST_FAILED]


def test_a_given_hint_and_detail_win() -> None:
    failure = fail(
        FailureCategory.PORT_BUSY, stage=Stage.REFLASH, where="device desk", message="held", hint="", detail="pid 12"
    )
    assert (failure.hint, failure.detail, failure.stage) == ("", "pid 12", Stage.REFLASH)


def test_permission_hint_names_the_group() -> None:
    assert "dialout" in FAILURE_MAP[FailureCategory.PORT_PERMISSION].hint


def test_the_markdown_has_one_row_per_category_in_order() -> None:
    lines = failure_map_markdown().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| `{category.value}`" for category in FailureCategory]
    assert lines[2] == (
        "| `config_error` | deploy.toml, the partition table or an option is missing, malformed or contradicts itself "
        "| before the first | no | `fix_config` | correct the named place; nothing was touched |"
    )
    assert all(line.count(" | ") == 5 for line in lines[2:])

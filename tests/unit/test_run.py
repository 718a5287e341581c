"""A run's own decisions: the order of stages, and what the wait for another run means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import events
from pipeline.effects import host
from pipeline.effects.host import Revision
from pipeline.measure.bench import generated_project
from pipeline.model import EventKind, Failure, FailureCategory, Stage
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project
from pipeline.run.run import Run
from pipeline.run.stage_of import StageOf
from pipeline.run.transactions import RunFacts


def project(root: Path, **options: str) -> Project:
    generated_project.write_project(root, 1)
    found = load_project(Options(**options), root)  # type: ignore[arg-type]
    assert isinstance(found, Project), found
    return found


@pytest.mark.parametrize("options", [{}, {"verify": "journal"}])
def test_a_wait_for_another_run_is_no_edit(tmp_path: Path, options: dict[str, str]) -> None:
    """`--verify` makes the configuration another one than what stands in deploy.toml; nobody edited that."""
    waited = project(tmp_path, **options)
    assert not waited.config_moved()
    path = tmp_path / "deploy.toml"
    path.write_text(path.read_text() + "# said in other words\n")
    assert not waited.config_moved()
    path.write_text(path.read_text().replace("[toolchain]", '[toolchain]\nunknown = "edited"', 1))
    assert waited.config_moved()
    path.unlink()
    assert waited.config_moved()


def test_the_first_event_of_a_log_waits_for_git_and_the_run_does_not(tmp_path: Path) -> None:
    run = Run(project(tmp_path))
    asked: list[int] = []

    def revision() -> Revision:
        asked.append(1)
        return Revision("a" * 40, True)

    run.transactions.begin([("", "")], RunFacts(("compile",), "local-fast", "zig", revision, 0, 0))
    assert not asked
    run.transactions.say(events.StageStarted(Stage.COMPILE))
    run.transactions.say(events.StageStarted(Stage.LINK))
    run.transactions.finish([], interrupted=False)
    ((_, found),) = run.transactions.recorded
    assert [event.kind for event in found][:3] == [
        EventKind.RUN_STARTED,
        EventKind.STAGE_STARTED,
        EventKind.STAGE_STARTED,
    ]
    assert (found[0].data["git_sha"], found[0].data["git_dirty"]) == ("a" * 40, True) and len(asked) == 1
    run.close()


def test_a_run_that_is_killed_before_its_first_stage_has_a_report(tmp_path: Path) -> None:
    killed, after = Run(project(tmp_path)), Run(project(tmp_path))
    facts = RunFacts(("deploy",), "local-fast", "zig", lambda: Revision("a" * 40, False), 0, 0)
    device = killed.project.devices[0].name
    killed.transactions.begin([(device, "/dev/board")], facts)
    killed.transactions._logs[0].log.close()  # as the end of its process does
    (left,) = after.transactions.begin([("", "")], facts)
    assert left.path is not None and left.path.is_file()
    assert (left.report["outcome"], left.report["git"]["sha"]) == ("interrupted", "a" * 40)
    after.transactions.finish([], interrupted=False)
    after.close()


@pytest.mark.parametrize("of_device", [False, True])
def test_the_first_event_is_not_lost_when_the_wait_for_git_is_interrupted(tmp_path: Path, of_device: bool) -> None:
    run = Run(project(tmp_path))
    answers: list[Revision] = []

    def revision() -> Revision:
        answers.append(Revision())
        if len(answers) == 1:
            raise KeyboardInterrupt
        return answers[-1]

    device = run.project.devices[0].name if of_device else ""
    with pytest.raises(KeyboardInterrupt):
        run.transactions.begin([(device, "")], RunFacts(("deploy",), "local-fast", "zig", revision, 0, 0))
        run.transactions.say(events.StageStarted(Stage.COMPILE))
    rendered = run.transactions.finish([], interrupted=True)
    ((_, found),) = run.transactions.recorded
    assert found[0].kind is EventKind.RUN_STARTED and found[-1].kind is EventKind.RUN_FINISHED
    assert [one.report["outcome"] for one in rendered] == ["interrupted"] * of_device
    run.close()


@pytest.mark.parametrize("stage", [Stage.REFLASH, Stage.REATTACH, Stage.TTFB])
def test_a_device_stage_alone_names_the_one_that_must_come_before_it(tmp_path: Path, stage: Stage) -> None:
    """`doit --single reflash:NAME` runs it without those that it depends on."""
    run = Run(project(tmp_path))
    device = run.project.devices[0]
    failure = run.execute(StageOf(stage, device.name)).failure
    assert isinstance(failure, Failure)
    before = {Stage.REFLASH: "verify-flash", Stage.REATTACH: "reflash", Stage.TTFB: "reattach"}[stage]
    assert failure.category is FailureCategory.CONFIG_ERROR
    assert before in failure.message and "--single" in failure.hint
    assert not run.nothing_to_write(device.name) and not run.confirm(device.name)
    run.close()


@pytest.mark.parametrize(("cores", "jobs"), [(0, 2), (1, 2), (2, 3), (3, 5), (4, 6), (64, 66)])
def test_as_many_commands_as_ninja(cores: int, jobs: int) -> None:
    assert host.parallel_jobs(cores) == jobs


def test_only_the_cores_that_may_be_used_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3}, raising=False)
    assert host.parallel_jobs() == 2
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert host.parallel_jobs() == 2

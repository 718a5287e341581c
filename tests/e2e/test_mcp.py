"""A real MCP client against `doit mcp`: a whole story over stdio, the guard of HTTP, cancellation that heals."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.space import Space, environment

pytest.importorskip("mcp")
METHODS = "firmware/core/methods.c"
DEADLINE_S = 300.0
SCENARIO = '[[step]]\ncall = "ping"\nresult = "pung"\n'


def on_stdio(space: Space, story: Callable[[Any], Awaitable[None]]) -> None:
    """Run `story` with a connected client."""
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters

    own = space.path / ".deploy"
    env = environment(XDG_CACHE_HOME=str(own / "user-cache"), XDG_STATE_HOME=str(own / "user-state"))
    server = StdioServerParameters(command=sys.executable, args=["-m", "doit", "mcp"], cwd=space.path, env=env)

    async def connected() -> None:
        async with Client(server) as client:
            await asyncio.wait_for(story(client), DEADLINE_S)

    asyncio.run(connected())


async def call(client: Any, name: str, **arguments: Any) -> Any:
    """The structured result of a tool that did not refuse."""
    done = await client.call_tool(name, arguments)
    assert not done.is_error, done.content
    return done.structured_content


@pytest.mark.long
def test_a_whole_story_over_stdio(host_space: Space) -> None:
    order: list[str] = []
    progress: list[tuple[float, str]] = []

    async def told(value: float, total: float | None, message: str | None) -> None:
        assert total == 7.0
        order.append("progress")
        progress.append((value, message or ""))

    async def story(client: Any) -> None:
        (device,) = (await call(client, "list_devices"))["devices"]
        assert (device["name"], device["virtual"], device["leased_to"]) == ("bench", True, "")
        assert "bench" in (await call(client, "plan"))["text"]

        host_space.edit(METHODS, 'out_text("\\"pong\\"");', 'out_text("\\"pong\\"")')
        broken = await call(client, "build")
        assert (broken["ok"], broken["exit_code"], broken["failure"]["category"]) == (False, 1, "compile_error")
        error = next(found for found in broken["diagnostics"] if found["severity"] == "error")
        assert error["path"] == METHODS and error["line"] > 0
        assert "expected ';'" in error["text"]
        host_space.edit(METHODS, 'out_text("\\"pong\\"")', 'out_text("\\"pung\\"");')

        done = await client.call_tool("deploy", {}, progress_callback=told)
        order.append("result")
        result = done.structured_content
        assert result["ok"] and (result["compiled"], result["linked"]) == (1, 1)
        (board,) = result["devices"]
        assert (board["outcome"], board["verified_by"], board["readiness"]) == ("full_flashed", "md5", "passed")
        assert all(len(region["md5"]) == 32 for region in board["regions"])
        answer = await call(client, "rpc_call", method="ping")
        assert (answer["result"], answer["untrusted"]) == ("pung", True)

        host_space.file("tests/live").mkdir(parents=True)
        host_space.file("tests/live/answers.toml").write_text(SCENARIO)
        tested = await call(client, "livetest", select="answers")
        assert tested["ok"], tested
        assert "1 passed" in tested["text"]

        report = await call(client, "read_report", transaction=board["transaction_id"])
        assert report["report"]["outcome"] == "full_flashed"
        assert len(report["report"]["reasons"]) <= 20
        text = (await client.read_resource(f"hotplate://report/{board['transaction_id']}")).contents[0].text
        assert text.startswith("# Deploy Report")
        sizes = await call(client, "size")
        app = next(image for image in sizes["images"] if image["name"] == "app")
        assert app["free"] == app["partition_size"] - app["size"] > 0

        host_space.edit("deploy.toml", 'port = "virtual:"', 'port = "virtual:?fault=panic:boot=0,times=0"')
        failed = (await call(client, "deploy"))["devices"][0]
        assert (failed["outcome"], failed["failure"]["category"]) == ("failed", "panic")
        assert failed["failure"]["detail"]
        prompt = await client.get_prompt("diagnose_failure", {"transaction": failed["transaction_id"]})
        assert failed["transaction_id"] in prompt.messages[0].content.text
        heard = await call(client, "monitor_read", seconds=1, most_lines=3)
        assert heard["crashed"] and {"panic"} <= {line["kind"] for line in heard["lines"]}
        assert sum(line["kind"] not in ("panic", "backtrace", "reset") for line in heard["lines"]) <= 3

    on_stdio(host_space, story)
    assert order[-1] == "result" and order.count("result") == 1
    assert [value for value, _ in progress] == sorted({value for value, _ in progress}), (
        "each is more than the one before"
    )
    texts = [text for _, text in progress]
    assert [text for text in texts if text.endswith(": started")][-1].startswith("ttfb")
    assert any(text.startswith("app: ") and " of " in text for text in texts), "the write itself is told"


def test_arguments_cannot_become_options(host_space: Space) -> None:
    async def story(client: Any) -> None:
        for tool, arguments, fact in (
            ("deploy", {"device": "bnch"}, "did you mean 'bench'"),
            ("explain", {"what": ["--db-file=x"]}, "leave out options"),
            ("read_report", {"transaction": "../../etc/passwd"}, ""),
            ("flash", {"region": "a=b"}, "leave out options"),
            ("monitor_read", {"seconds": 1e9}, "from 0.1 to 600"),
            ("baseline", {"kind": "hot"}, "choose cold, warm or full"),
            ("deploy", {"devise": "bench"}, "error: there is no argument 'devise'; did you mean 'device'?\nhint: use "),
            ("read_report", {"tx": "tx-20260101-000000-000000"}, "there is no argument 'tx'\nhint: use transaction"),
            ("list_devices", {"all": True}, "list_devices: error: there is no argument 'all'\nhint: call it without"),
            ("release_device", {}, "release_device: error: argument 'device' is missing\nhint: give it"),
            ("deploy", {"device": 3}, "deploy: error: argument 'device' is 3: input should be a valid string\nhint: "),
            ("rpc_call", {"method": "ping", "params": "x" * 100}, f"is '{'x' * 59}...: input should be a valid "),
        ):
            done = await client.call_tool(tool, arguments)
            assert done.is_error, tool
            assert fact in done.content[0].text, done.content[0].text
            assert "pydantic" not in done.content[0].text
        assert not (host_space.path / "reports").exists(), "nothing ran"
        for uri in ("hotplate://report/..%2F..%2Fdeploy", "hotplate://console/..%2Fx", "hotplate://device/none"):
            with pytest.raises(Exception, match=r"."):
                await client.read_resource(uri)
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools if tool.input_schema["additionalProperties"] is not False] == []
        names = {tool.name: tool.annotations for tool in tools}
        assert names["plan"].read_only_hint and not names["plan"].destructive_hint
        assert names["deploy"].destructive_hint and not names["deploy"].read_only_hint
        older = {"run_all_pc", "run_all_devices", "run_build", "run_flash", "run_livetest", "run_summarise"}
        assert older | {"read_status", "list_devices"} <= set(names)

    on_stdio(host_space, story)


def test_a_leased_board_is_used_under_the_lease(host_space: Space) -> None:
    async def story(client: Any) -> None:
        assert (await call(client, "acquire_device", device="bench", reason="experiment"))["leased"]
        assert (await call(client, "list_devices"))["devices"][0]["leased_to"].startswith("experiment")
        assert (await call(client, "deploy"))["ok"]
        other = await asyncio.to_thread(host_space.deploy)
        assert (other.code, other.category) == (1, "port_busy")
        assert "experiment" in other.report["failure"]["message"]
        assert not (await call(client, "release_device", device="bench"))["leased"]
        assert (await asyncio.to_thread(host_space.deploy)).outcome == "verified_unchanged"
        await call(client, "acquire_device", device="bench", reason="forgotten")

    on_stdio(host_space, story)
    assert host_space.deploy().outcome == "verified_unchanged", "a lease ends with the server"


def test_a_cancelled_deploy_ends_in_order_and_the_next_one_heals(host_space: Space) -> None:
    host_space.edit("deploy.toml", 'port = "virtual:"', 'port = "virtual:"\ntiming = "esp32c3-usb"')

    async def story(client: Any) -> None:
        begun = asyncio.Event()

        async def told(value: float, total: float | None, message: str | None) -> None:
            del value, total
            if message and "started" in message and "verify-flash" in message:
                begun.set()

        deploy = asyncio.create_task(client.call_tool("deploy", {}, progress_callback=told))
        await begun.wait()
        deploy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploy
        # The run before holds the project's lock until it has ended in order.
        assert (await call(client, "deploy"))["devices"][0]["readiness"] == "passed"

    on_stdio(host_space, story)
    assert host_space.deploy().outcome == "verified_unchanged"
    outcomes = {json.loads(path.read_text())["outcome"] for path in (host_space.path / "reports").glob("tx-*.json")}
    assert outcomes <= {
        "interrupted",
        "failed",
        "full_flashed",
        "delta_flashed",
        "regions_flashed",
        "verified_unchanged",
    }


def test_http_listens_here_and_wants_its_token(host_space: Space) -> None:
    server = host_space.start("mcp", "--http")
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        place = host_space.path / ".deploy/mcp.json"
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        told = json.loads(place.read_text())

        def status(**headers: str) -> int:
            request = urllib.request.Request(told["url"], data=b"{}", headers={"Content-Type": "application/json"})
            for name, value in headers.items():
                request.add_header(name, value)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        bearer = f"Bearer {told['token']}"
        assert status() == 401
        assert status(Authorization="Bearer nonsense") == 401
        assert status(Authorization=bearer, Host="evil.example") == 421
        assert status(Authorization=bearer, Origin="http://evil.example") == 403
        assert status(Authorization=bearer) in (400, 406), "the protocol's own word about an empty request"
        asyncio.run(_over_http(told["url"], bearer))
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert not place.exists()


async def _over_http(url: str, bearer: str) -> None:
    import httpx2 as httpx
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    http = httpx.AsyncClient(headers={"Authorization": bearer}, timeout=60)
    async with http, Client(streamable_http_client(url, http_client=http)) as client:
        assert (await call(client, "list_devices"))["devices"][0]["name"] == "bench"

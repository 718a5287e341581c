"""Questions to a running firmware: answers by id, whatever else is on the line, within the deadline."""

from __future__ import annotations

import json

from pipeline.device.rpc_client import ask
from pipeline.effects.api import Gap


class AnsweringFirmware:
    """A link on whose other end a script answers; time passes only while nothing comes."""

    name = "scripted"
    real_time = False
    gaps: tuple[Gap, ...] = ()

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.sent = b""
        self.time_s = 10.0

    def now_s(self) -> float:
        return self.time_s

    def write(self, data: bytes) -> None:
        self.sent += data

    def read(self, timeout_s: float) -> bytes:
        if not self.chunks:
            self.time_s += timeout_s
            return b""
        self.time_s += 0.01
        return self.chunks.pop(0)

    def set_baud(self, baud: int) -> None: ...
    def release_reset(self) -> float:
        raise AssertionError("nobody asked for a reset")

    def close(self) -> None: ...


def answer(key: object, result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": key, "result": result}).encode() + b"\n"


def test_each_method_gets_the_answer_with_its_id() -> None:
    link = AnsweringFirmware(answer("t-1", {"b": 2}) + answer("t-0", {"a": 1})[:9], answer("t-0", {"a": 1})[9:])
    answers = ask(link, ("info", "health"), "t", 1.0)
    assert answers.results == {"info": {"a": 1}, "health": {"b": 2}}
    assert (answers.sent_s, answers.first_byte_s, answers.first_answer_s) == (10.0, 10.01, 10.01)
    lines = link.sent.decode().split("\n")
    assert [json.loads(line)["method"] for line in lines if line] == ["info", "health"] and lines[0] == ""


def test_other_traffic_is_not_an_answer() -> None:
    noise = [
        b"I (12) main: hello\n",
        answer("t-9", 1),
        answer(0, 1),
        b'{"jsonrpc":"2.0","id":"t-0","method":"echo"}\n',
        b'{"id":"t-0","result":1}\n',
        b"\xff\xfe" * 100 + b"\n",
        answer("t-0", "mine"),
    ]
    assert ask(AnsweringFirmware(*noise), ("info",), "t", 1.0).results == {"info": "mine"}


def test_an_error_is_an_answer_without_a_result() -> None:
    refused = b'{"jsonrpc":"2.0","id":"t-0","error":{"code":-32601,"message":"no such method"}}\n'
    assert ask(AnsweringFirmware(refused), ("image.hashes",), "t", 1.0).results == {"image.hashes": None}


def test_silence_and_babble_end_at_the_deadline() -> None:
    silent = AnsweringFirmware()
    assert ask(silent, ("info",), "t", 0.5).results == {} and silent.time_s == 10.5
    babbling = AnsweringFirmware(*[b"x" * 4096] * 100)
    assert ask(babbling, ("info",), "t", 0.5).first_byte_s == 10.01
    assert babbling.time_s < 10.6, "a device that never stops does not hold the run"

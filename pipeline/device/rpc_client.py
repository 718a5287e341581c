"""Ask the firmware that runs on a link: JSON-RPC requests out, the answers with their ids back.

Knows lines and ids, not what the methods mean. Does not reset and does not retry.
Invariant: ends at its deadline; an answer counts only with the id of a question of this call, so that whatever was
under way on the line cannot be taken for one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.boot.lines import MAX_LINE
from pipeline.effects.api import Answers, SerialLink
from pipeline.formats.jsonrpc import parse_jsonrpc


def ask(link: SerialLink, methods: Sequence[str], tag: str, timeout_s: float) -> Answers:
    """Send one request per method, ids beginning with `tag` (short: at 115200 baud each byte takes 87 us, there and
    back), and wait until all are answered or the time is up. Raises
    DeviceError when the port fails."""
    waiting = {f"{tag}-{number}": method for number, method in enumerate(methods)}
    requests = [_request(key, method) for key, method in waiting.items()]
    results: dict[str, Any] = {}
    sent_s = link.now_s()
    # A line end first: whatever was typed before is not to become part of the request.
    link.write(("\n" + "\n".join(requests) + "\n").encode())
    first_byte_s = first_answer_s = None
    pending = b""
    pending_at_s = sent_s
    while waiting and (left_s := sent_s + timeout_s - link.now_s()) > 0:
        data = link.read(left_s)
        if not data:
            continue
        at_s = link.now_s()
        first_byte_s = at_s if first_byte_s is None else first_byte_s
        if not pending:
            pending_at_s = at_s
        *lines, pending = (pending + data).split(b"\n")
        pending = pending[-MAX_LINE:]
        for line in lines:
            message = parse_jsonrpc(line)
            if message is not None and message.get("id") in waiting and "method" not in message:
                first_answer_s = pending_at_s if first_answer_s is None else first_answer_s
                results[waiting.pop(message["id"])] = message.get("result")
            pending_at_s = at_s
    return Answers(results, sent_s, first_byte_s, first_answer_s)


def _request(key: str, method: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": key, "method": method}, separators=(",", ":"))

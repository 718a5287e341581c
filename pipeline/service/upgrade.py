"""An older service makes room for a newer one.

Knows versions and the questions that are the same in every protocol: `hello`, `refused`, `stop`, `done`. Invariant: a
service that lends a board to a writer, or that is not older, is left alone.
"""

from __future__ import annotations

import re

from pipeline import __version__
from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import Message

ANSWER_S = 5.0


def ask_to_stop() -> str:
    """Ask the service that runs to end, if it is older than this; "" when it will, else why not."""
    try:
        connection = Connection.open(any_protocol=True)
    except NoService as error:
        return str(error)
    try:
        theirs = str(connection.welcome.header.get("version", ""))
        if _number(theirs) >= _number(__version__):
            return f"it is of version {theirs or 'unknown'}, and this is {__version__}"
        answer = connection.request(Message.STOP, timeout_s=ANSWER_S)
        if answer.message != Message.DONE:
            return f"it answers {answer.message[:40]!r}"
        return str(answer.header.get("refused") or "")
    except NoService as error:
        return str(error)
    finally:
        connection.close()


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])

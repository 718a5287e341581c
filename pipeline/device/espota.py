"""Push an application to firmware with Arduino's OTA listener (ArduinoOTA, "espota").

Knows that protocol: an invitation by UDP, perhaps a challenge, then the device connects and takes the image over TCP,
answering each piece. Facts: arduino-esp32's `ArduinoOTA.cpp` and `espota.py`; from core 3.3.1 on the challenge is
PBKDF2 with SHA-256 (64 digits of nonce), before that MD5 (32). Does not know what the image is. Invariant: every wait
has a deadline, and success is the device's own `OK` after the last byte.

    host -> device  UDP   "0 <our port> <size> <md5 of the image>\\n"
    device -> host        "OK"  |  "AUTH <nonce>"
    host -> device        "200 <cnonce> <response>\\n"          then "OK" again
    device -> host  TCP   connects to our port; answers each piece with the number of bytes that it wrote; at last "OK"
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable

from cache.named_tuple import NamedTuple
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage

DEFAULT_PORT = 3232
PIECE = 1024
INVITE_S, INVITATIONS = 1.0, 10
CONNECT_S = 10.0
PIECE_S = 10.0
END_S = 60.0
ROUNDS = 10_000


class EspotaTarget(NamedTuple):
    """`espota://[password@]host[:port]`."""

    host: str
    port: int = DEFAULT_PORT
    password: str = ""


def push(target: EspotaTarget, image: bytes, where: str, progress: Callable[[str, int, int], None]) -> Failure | None:
    """Send `image`; None when the device has taken it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("", 0))
            listener.listen(1)
            refused = _invite(target, image, listener.getsockname()[1])
            if refused:
                return _failed(where, refused)
            listener.settimeout(CONNECT_S)
            connection, _ = listener.accept()
            with connection:
                told = _send(connection, image, progress)
    except TimeoutError:
        return _failed(where, f"the device did not go on within {CONNECT_S:g} s")
    except OSError as error:
        return _failed(where, f"the network failed: {error}")
    return _failed(where, told) if told else None


def response(password: str, nonce: str, cnonce: str) -> str:
    """What a device with this password expects as the answer to its challenge."""
    if len(nonce) == 32:
        inner = hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
        return hashlib.md5(f"{inner}:{nonce}:{cnonce}".encode(), usedforsecurity=False).hexdigest()
    inner = hashlib.sha256(password.encode()).hexdigest()
    key = hashlib.pbkdf2_hmac("sha256", inner.encode(), f"{nonce}:{cnonce}".encode(), ROUNDS).hex()
    return hashlib.sha256(f"{key}:{nonce}:{cnonce}".encode()).hexdigest()


def _invite(target: EspotaTarget, image: bytes, port: int) -> str:
    """Until the device accepts; why it does not, "" when it does."""
    md5 = hashlib.md5(image, usedforsecurity=False).hexdigest()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((target.host, target.port))
        answer = _asked(udp, f"0 {port} {len(image)} {md5}\n", INVITATIONS)
        if answer.startswith("AUTH "):
            nonce = answer[5:].strip()
            if len(nonce) not in (32, 64):
                return f"its challenge is {answer[:80]!r}"
            if not target.password:
                return "it asks for a password"
            make = hashlib.sha256 if len(nonce) == 64 else hashlib.md5
            cnonce = make(f"{len(image)}{md5}{time.time_ns()}".encode()).hexdigest()
            answer = _asked(udp, f"200 {cnonce} {response(target.password, nonce, cnonce)}\n", 1, CONNECT_S)
        if answer == "OK":
            return ""
        return f"it answered {answer[:80]!r}" if answer else f"nothing answers on {target.host}:{target.port}"


def _asked(udp: socket.socket, text: str, tries: int, wait_s: float = INVITE_S) -> str:
    """The answer to a datagram, "" when there is none."""
    for _ in range(tries):
        try:
            udp.send(text.encode())
            udp.settimeout(wait_s)
            return udp.recv(128).decode("ascii", "replace")
        except (TimeoutError, ConnectionRefusedError):
            continue
    return ""


def _send(connection: socket.socket, image: bytes, progress: Callable[[str, int, int], None]) -> str:
    """The image in pieces; what the device complains of, "" when it said OK."""
    said = b""
    connection.settimeout(PIECE_S)
    for at in range(0, len(image), PIECE):
        connection.sendall(image[at : at + PIECE])
        said = connection.recv(64)
        if not said:
            return f"it closed the connection after {at} of {len(image)} bytes"
        progress("ota", min(at + PIECE, len(image)), len(image))
    deadline = time.monotonic() + END_S
    while b"OK" not in said and (left_s := deadline - time.monotonic()) > 0:
        connection.settimeout(left_s)
        more = connection.recv(64)
        if not more:
            break
        said += more
    return "" if b"OK" in said else f"its last word is {said[-80:].decode('ascii', 'replace')!r}"


def _failed(where: str, fact: str) -> Failure:
    message = f"the update was not taken: {fact}"
    hint = "check the device's `ota` (espota://[password@]host[:port]), and that it is on this network"
    category = FailureCategory.WRITE_FAILED
    return fail(category, stage=Stage.REFLASH, where=where, message=message, hint=hint)

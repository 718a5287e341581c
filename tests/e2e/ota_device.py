"""A device on the network as a process: a console by TCP, Arduino's OTA listener, and a method that pulls an update.

It plays the device's side as arduino-esp32's `ArduinoOTA.cpp` has it, by sockets of its own; what it runs is the image
that it was given last, known by the `app_elf_sha256` in its description (offset 0xb0 of the file). Prints its ports.

    python -m tests.e2e.ota_device [--password TEXT] [--old-challenge] [--forget] [--hashes] [--rots N]
                                [--garbled METHOD:N]

`--forget`: it takes an image and does not start it. `--hashes`: it offers `image.hashes`, for the slot at 0x150000;
with `--rots N` a bit of the slot has turned when it is asked that for the Nth time. `--garbled METHOD:N`: a character
of the Nth answer to a method turns on its way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import socket
import threading
import urllib.request
from collections import Counter
from typing import Any

from pipeline.device.espota import response

MAC = "7c:df:a1:00:22:44"


class OtaDevice:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.elf = "0" * 64
        self.slot = b""
        self.asked: Counter[str] = Counter()
        self.console = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.lock = threading.Lock()
        self.viewer: socket.socket | None = None
        self.watched = threading.Event()
        """Somebody has been on the console: what is said before that reaches nobody."""

    def say(self, message: dict[str, Any]) -> None:
        with self.lock:
            if self.viewer is not None:
                self.viewer.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def took(self, image: bytes) -> None:
        """Restart into the image."""
        self.watched.wait(60)
        if not self.options.forget:
            self.elf = image[0xB0:0xD0].hex()
            self.slot = image
        with self.lock:
            if self.viewer is not None:
                self.viewer.sendall(
                    b"ESP-ROM:esp32c3-api1-20210207\r\nrst:0xc (RTC_SW_CPU_RST),boot:0xc\r\n"
                    b"I (54) boot: Loaded app from partition at offset 0x150000\r\n"
                )
        self.say({"method": "ready", "params": {"app_elf_sha256": self.elf, "project": "x", "partition": "ota_1"}})

    def serve_console(self) -> None:
        while True:
            viewer, _ = self.console.accept()
            with self.lock:
                self.viewer = viewer
            self.watched.set()
            with viewer, viewer.makefile("rb") as lines:
                for line in lines:
                    if line.startswith(b"{"):
                        self.answer(json.loads(line))
            with self.lock:
                self.viewer = None

    def answer(self, request: dict[str, Any]) -> None:
        method = str(request.get("method"))
        self.asked[method] += 1
        garbled = self.options.garbled == f"{method}:{self.asked[method]}"
        if method == "info":
            mac = MAC[:-1] + "5" if garbled else MAC
            self.say({"id": request["id"], "result": {"mac": mac, "app_elf_sha256": self.elf, "partition": "ota_0"}})
        elif method == "image.hashes" and self.options.hashes:
            if self.asked[method] == self.options.rots:
                self.slot = self.slot[:-1] + bytes([self.slot[-1] ^ 1])
            digest = hashlib.sha256(self.slot).hexdigest()
            digest = f"{int(digest, 16) ^ 1:064x}" if garbled else digest
            row = {"offset": 0x150000, "size": len(self.slot), "sha256": digest, "running": True}
            self.say({"id": request["id"], "result": {"mac": MAC, "regions": [row]}})
        elif method == "ota.url":
            self.say({"id": request["id"], "result": True})
            threading.Thread(target=self.pull, args=(request["params"]["url"],), daemon=True).start()

    def pull(self, url: str) -> None:
        """In two parts, as after a connection that was lost."""
        parts = []
        for span in ("bytes=0-9999", "bytes=10000-"):
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": span}), timeout=60) as answer:
                assert answer.status == 206
                parts.append(answer.read())
        self.took(b"".join(parts))

    def serve_updates(self) -> None:
        while True:
            data, sender = self.udp.recvfrom(256)
            words = data.decode().split()
            if len(words) != 4 or words[0] != "0":
                continue
            if self.options.password and not self.authorised(sender):
                continue
            self.udp.sendto(b"OK", sender)
            self.receive((sender[0], int(words[1])), int(words[2]), words[3])

    def authorised(self, sender: Any) -> bool:
        nonce = secrets.token_hex(16 if self.options.old_challenge else 32)
        self.udp.sendto(f"AUTH {nonce}".encode(), sender)
        words = self.udp.recvfrom(256)[0].decode().split()
        good = len(words) == 3 and words[0] == "200" and words[2] == response(self.options.password, nonce, words[1])
        if not good:
            self.udp.sendto(b"Authentication Failed", sender)
        return good

    def receive(self, host: tuple[str, int], size: int, md5: str) -> None:
        image = b""
        with socket.create_connection(host, timeout=60) as connection:
            while len(image) < size:
                piece = connection.recv(1460)
                if not piece:
                    return
                image += piece
                connection.sendall(str(len(piece)).encode())
            if hashlib.md5(image).hexdigest() != md5:
                connection.sendall(b"MD5 Check Failed")
                return
            connection.sendall(b"OK")
        self.took(image)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--password", default="")
    parser.add_argument("--old-challenge", action="store_true")
    parser.add_argument("--forget", action="store_true")
    parser.add_argument("--hashes", action="store_true")
    parser.add_argument("--rots", type=int, default=0)
    parser.add_argument("--garbled", default="")
    device = OtaDevice(parser.parse_args())
    threading.Thread(target=device.serve_console, daemon=True).start()
    print(device.console.getsockname()[1], device.udp.getsockname()[1], flush=True)
    device.serve_updates()


if __name__ == "__main__":
    main()

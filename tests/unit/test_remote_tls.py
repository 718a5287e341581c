"""A shared cache over https: the certificate is checked, and one that is not known is said."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cache.blobs import BlobStore
from cache.digest import digest_bytes
from cache.remote import Remote
from pipeline.config.schema import CacheSettings
from pipeline.effects.clock import SystemClock
from pipeline.remote import http_cache
from pipeline.remote.opening import open_remote
from pipeline.remote.wire import Endpoint, Wire
from tests.cache_server import CacheServer
from tests.unit.test_remote_http import AT_ONCE_S, PATIENCE_S

DATA = b"object " * 100_000


def certificate(place: Path) -> Path:
    """A new one for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cache")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(1))
    made = builder.not_valid_after(now + datetime.timedelta(1)).add_extension(address, critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    place.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return place


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CacheServer]:
    server = CacheServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path / "pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.cas[digest_bytes(DATA).hex] = DATA
    with server:
        yield server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_cache, "STALL_S", PATIENCE_S)


def client(server: CacheServer) -> Remote:
    url = server.url.replace("http://", "https://")
    opened = open_remote(CacheSettings(remote=url), {}, SystemClock())
    assert not isinstance(opened, str)
    server.clients.append(opened)
    return opened


def test_a_certificate_that_is_known(server: CacheServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
    mine = client(server)
    assert mine.fetch([digest_bytes(DATA)], BlobStore(tmp_path), PATIENCE_S) == {digest_bytes(DATA)}
    assert mine.notes() == ()


def test_a_certificate_that_is_not(server: CacheServer, tmp_path: Path) -> None:
    mine = client(server)
    began_s = time.monotonic()
    assert mine.fetch([digest_bytes(DATA)], BlobStore(tmp_path), PATIENCE_S) == frozenset()
    assert time.monotonic() - began_s < AT_ONCE_S
    assert len(mine.notes()) == 1 and "certificate verify failed" in mine.notes()[0]


def test_an_interrupted_connection_sends_nothing_in_clear(server: CacheServer, tmp_path: Path) -> None:
    """By whoever has not seen yet that it was."""
    context = ssl.create_default_context(cafile=str(tmp_path / "pem"))
    clock = SystemClock()
    endpoint = Endpoint("127.0.0.1", server.server_address[1], tls=True)
    wire = Wire(endpoint, clock.now_s, clock.now_s() + 20.0, context)
    wire.interrupt()
    with pytest.raises(OSError):
        wire.send(b"Authorization: secret")
    assert isinstance(wire._socket, ssl.SSLSocket) and wire._socket.version() is not None
    wire.close()

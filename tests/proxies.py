"""Proxies with TLS before the pages: nginx as docs/monitor.md has it, and a stand-in that needs nothing."""

from __future__ import annotations

import datetime
import http.client
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.ports import free_port
from tests.waiting import LONGEST, wait_until

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs" / "monitor.md"
NAME: Final = "farm.localhost"
"""What visitors call the proxy: a name that leads to this machine."""


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that nobody trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    begin = datetime.datetime(2020, 1, 1)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(begin).not_valid_after(begin.replace(year=2120))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    public, secret = folder / "farm.pem", folder / "farm.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return public, secret


@contextmanager
def nginx(program: str, folder: Path, upstream: str) -> Iterator[str]:
    """nginx with the block of docs/monitor.md, of which ports and files are others; yields its address."""
    found = re.search(r"```nginx\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert found is not None
    public, secret = certificate(folder)
    port = free_port()
    block = found[1]
    for there, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("http://127.0.0.1:8484", upstream),
        ("/etc/ssl/farm.pem", str(public)),
        ("/etc/ssl/farm.key", str(secret)),
        ("farm.example", NAME),
    ):
        assert there in block, there
        block = block.replace(there, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{places}{block}}}\n"
    )
    with subprocess.Popen([program, "-p", folder, "-c", file, "-e", folder / "error.log"]) as process:
        try:
            wait_until(lambda: _listens(port) or process.poll() is not None, "nginx listens")
            assert process.poll() is None, (folder / "error.log").read_text()
            yield f"https://{NAME}:{port}"
        finally:
            process.terminate()


@contextmanager
def stand_in(folder: Path, upstream: str) -> Iterator[str]:
    """A proxy that ends TLS and hands all else through; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urlsplit(upstream).netloc))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://{NAME}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _hand_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {**self.headers, "X-Forwarded-Proto": "https", "Connection": "close"}
            connection = http.client.HTTPConnection(upstream, timeout=LONGEST)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)
            connection.close()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        do_GET: Callable[..., None] = _hand_on
        do_POST: Callable[..., None] = _hand_on

    return Handler


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True

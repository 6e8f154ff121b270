"""Ports that servers of tests listen on, also after they were killed and started again; who is connected."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DRAWN = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no outgoing connection is given."""
    lowest, highest = map(int, _EPHEMERAL.read_text().split()) if _EPHEMERAL.exists() else (32768, 60999)
    outside = [*range(10_000, lowest), *range(highest + 1, 65_536)]
    while True:
        port = _DRAWN.choice(outside)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def connections_at(url: str) -> int:
    """How many connections this process has taken at an address, and has open."""
    port = urlsplit(url).port
    found = psutil.Process().net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in found)

"""The variables that Kubernetes and Docker put into a container for each service beside it.

A Service called `imagemill-redis` gives every container of its namespace IMAGEMILL_REDIS_SERVICE_HOST,
IMAGEMILL_REDIS_PORT and five more, unless `enableServiceLinks: false` says otherwise:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", value) is not None


def _is_place(value: str) -> bool:
    """Whether a value is what a setting hardly is: tcp://10.0.0.7:6379."""
    return re.fullmatch(r"(tcp|udp|sctp)://[0-9A-Fa-f.:\[\]]+:[0-9]{1,5}", value) is not None


_PROTOCOL: Final = "_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)"
_LINKS: Final[tuple[tuple[str, Callable[[str], bool]], ...]] = (
    ("_SERVICE_HOST", _is_address),
    ("_SERVICE_PORT(_[A-Z0-9_]+)?", _is_port),
    ("_PORT", _is_place),
    (_PROTOCOL, _is_place),
    (f"{_PROTOCOL}_PROTO", lambda value: value in ("tcp", "udp", "sctp")),
    (f"{_PROTOCOL}_PORT", _is_port),
    (f"{_PROTOCOL}_ADDR", _is_address),
)
"""How such a variable ends, and what its value is then."""


def is_service_link(variable: str, value: str) -> bool:
    """Whether a variable was put there for a service: by its end and by its value.

    So IMAGEMILL_PORT=8080, which somebody wrote, is none, and IMAGEMILL_PORT=tcp://10.0.0.7:8080 is one.
    """
    return any(re.fullmatch(f"[A-Z0-9_]+?{end}", variable) and fits(value) for end, fits in _LINKS)

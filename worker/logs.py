"""Log lines for people or for machines, each saying which worker, job, shard and image it is about."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from jobs.connection import safe_text
from jobs.wording import on_its_lines, on_one_line

Format = Literal["plain", "json"]

_bound: ContextVar[Mapping[str, str | int]] = ContextVar("log_context", default={})  # noqa: B039


@contextmanager
def bound(*, job: str | None = None, shard: int | None = None, image_id: str | None = None) -> Iterator[None]:
    """Put these into every line logged inside the block, on top of those of the blocks around it.

    It holds for the thread it is used in; a thread started inside begins without them.
    """
    given = {"job": job, "shard": shard, "image_id": image_id}
    token = _bound.set(
        {**_bound.get(), **{name: value for name, value in given.items() if value is not None}}
    )
    try:
        yield
    finally:
        _bound.reset(token)


def configure(format: Format, level: str, worker: str = "") -> None:
    """Send every logger's lines of `level` and above to standard error, and nowhere else.

    `worker` is the process's name, `gpu0@host`, left out when it is empty. Replaces the root logger's
    handlers, so that a second call doubles no line; Celery's loggers pass on to it once its signal
    `setup_logging` has a receiver.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(worker) if format == "json" else _PlainFormatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # huggingface_hub's client, which is one or the other, logs every request at INFO.
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(max(logging.WARNING, root.level))
    # In a container root is the only user there is, and four lines at each start hide what matters.
    warnings.filterwarnings("ignore", "You're running the worker with superuser privileges")
    logging.captureWarnings(True)


def drop_celerys_advice() -> None:
    """Drops nine lines at each lost connection, about a setting that `jobs.ledger.broker` has on purpose.

    After Celery's start, which asks for them.
    """
    warnings.filterwarnings("ignore", r"\s*In Celery 5\.1 we introduced an optional breaking change")


class _PlainFormatter(logging.Formatter):
    """HH:MM:SS LEVEL gpu0@host job=sunsets-1 shard=12 image=0123456789abcdef message, in local time."""

    def __init__(self, worker: str) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.worker = worker

    def formatMessage(self, record: logging.LogRecord) -> str:
        context = "".join(
            f"{'image' if name == 'image_id' else name}={value} " for name, value in _bound.get().items()
        )
        worker = f"{self.worker} " if self.worker else ""
        said = f"{record.asctime} {record.levelname} {worker}{context}{record.message}"
        # Celery logs ids and names of messages, which anyone may have written.
        return on_one_line(said.rstrip("\n"))

    def usesTime(self) -> bool:
        return True

    def format(self, record: logging.LogRecord) -> str:
        return safe_text(super().format(record))

    def formatException(self, ei: Any) -> str:
        """A traceback, indented: none of its lines looks like one of the log's own."""
        return textwrap.indent(on_its_lines(super().formatException(ei)), "  ")


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, worker, and where they are
    known job, shard, image_id and exc (a traceback)."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self.worker = worker

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, str | int] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": safe_text(record.getMessage()),
        }
        if self.worker:
            line["worker"] = self.worker
        line.update(_bound.get())
        if record.exc_info:
            line["exc"] = safe_text(self.formatException(record.exc_info))
        text = json.dumps(line, ensure_ascii=False)
        # JSON itself escapes no DEL, no C1 control and no mark that turns the direction of writing.
        return text if text.isprintable() else "".join(map(_json_escaped, text))


def _json_escaped(one: str) -> str:
    return one if one.isprintable() else json.dumps(one)[1:-1]

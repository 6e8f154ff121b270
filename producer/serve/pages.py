"""The templates, and what they may use.

Everything that they print is escaped, and turns no other text around: prompts, names and reasons are
strangers' text.
"""

from __future__ import annotations

import hashlib
from dataclasses import Field, fields
from time import localtime, strftime
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from producer import show
from producer.serve import page_text
from producer.serve.outputs import key_of


class Shown(Protocol):
    """What a page shows: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Pages:
    """Makes pages of templates."""

    def __init__(self, *, guarded: bool) -> None:
        """`guarded`: whether visitors sign in."""
        self._templates = Environment(
            loader=PackageLoader("producer.serve"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=page_text.isolated,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "grouped": lambda number: f"{number:,}",
            "duration": show.duration,
            "rate": show.rate,
            "clock": _clock,
            "message": page_text.message,
            "mixed": page_text.mixed,
            "bare": page_text.bare,
            "kept": page_text.kept,
            "short": page_text.short,
            "segment": lambda text: quote(text, safe=""),
            "key": key_of,
            "last_part": lambda label: label.rstrip("/").rpartition("/")[2] or label,
            "name": lambda text: hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16],
        }
        self._templates.globals |= {"state": show.state, "cut_prompts": show.cut_prompts, "guarded": guarded}

    def compile(self) -> None:
        """Read all templates now instead of when they are first asked for."""
        for name in self._templates.list_templates(extensions=["html"]):
            self._templates.get_template(name)

    def answer(self, request: Request, template: str, shown: Shown, *, status: int = 200) -> HTMLResponse:
        """The page that a template makes of an object, whose fields it knows by their names."""
        context = {one.name: getattr(shown, one.name) for one in fields(shown)}
        text = self._templates.get_template(template).render({"path": request.url.path, **context})
        # Half of a surrogate pair, in a name of a file, is in no encoding.
        return HTMLResponse(text.encode("utf-8", "replace"), status)


def _clock(moment: float) -> str:
    """A Unix time as a person of this machine reads it; a dash for 0."""
    return strftime("%Y-%m-%d %H:%M:%S", localtime(moment)) if moment else "–"

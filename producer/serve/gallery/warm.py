"""What the first visitor would wait for: modules that are slow to import, loaded before anybody comes."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Final

import anyio

_SLOW: Final = (
    "producer.importing.manifest_text",
    "producer.importing.own",
    "producer.serve.gallery.gallery_pages",
    "uvicorn",
)
_TABLES: Final = ("pyarrow.parquet", "pyarrow.compute")


def warm() -> None:
    """Load them; those of an extra that is not installed stay away."""
    for name in (*_SLOW, *(_TABLES if find_spec("pyarrow") is not None else ())):
        import_module(name)
    anyio.run(anyio.sleep, 0)  # loads its backend, which runs threads for pages
    if find_spec("pyarrow") is not None:
        import pyarrow

        # Its own allocator keeps 10 MB more of what was freed.
        pyarrow.set_memory_pool(pyarrow.system_memory_pool())

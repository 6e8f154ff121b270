"""Three sizes of a benchmark: `--toy` for the tests, the usual one of at most three minutes, `--full`.

docs/performance.md shows what `--full` printed. A script finds this in its own folder, as `sizes`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

Number = int | float


def parse_sized(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
    **sizes: tuple[Number, Number, Number],
) -> argparse.Namespace:
    """The parsed options; each of `sizes` becomes an option whose default is its toy, usual or full value."""
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--toy", action="store_true", help="so small that it only shows that the script runs")
    chosen.add_argument("--full", action="store_true", help="as docs/performance.md shows it; takes long")
    for name, (toy, usual, full) in sizes.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(full),
            metavar="N",
            help=f"default {usual:,}; with --toy {toy:,}, with --full {full:,}",
        )
    options = parser.parse_args(arguments)
    for name, each in sizes.items():
        if getattr(options, name) is None:
            setattr(options, name, each[0 if options.toy else 2 if options.full else 1])
    return options

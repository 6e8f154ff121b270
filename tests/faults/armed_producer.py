"""`python -m tests.faults.armed_producer submit FILE`: the product's command line, with failpoints armed."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.failpoints import arm
from producer.cli import main
from tests.faults.arming import FOLDER, Armed

if __name__ == "__main__":
    arm(Armed(Path(os.environ[FOLDER]), "producer", RuntimeError))
    main()

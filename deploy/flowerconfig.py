"""What Flower's options do not offer: `celery -A worker.celery_app flower --conf=deploy/flowerconfig.py …`

Flower asks for the password on every page but two: `/healthcheck`, which says OK and nothing else, and
`/metrics`, which names every worker and counts its tasks. With this file, `/metrics` asks for it, too:
Prometheus sends one by `basic_auth`. Where no user and password are set, nothing of Flower asks for them.
"""

import os
import sys
from pathlib import Path

from flower.views.monitor import Metrics
from tornado.web import authenticated

Metrics.get = authenticated(Metrics.get)

_file = os.environ.get("FLOWER_BASIC_AUTH_FILE")
if _file is not None:
    # USER:PASSWORD as a file, such as a secret of Compose or Kubernetes.
    basic_auth = [Path(_file).read_text(encoding="utf-8").strip()]
    if not all(basic_auth[0].partition(":")):
        # An empty password would let in everybody who sends an empty one.
        sys.exit(f"FLOWER_BASIC_AUTH_FILE = {_file}: must hold USER:PASSWORD")

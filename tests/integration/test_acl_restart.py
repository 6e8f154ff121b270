"""A server that is killed has the jobs of its appendonly file again, of Redis 7.0 as well as Valkey."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.guarded_redis import PASSWORDS

ROOT = Path(__file__).parents[2]


def test_the_default_user_is_closed_to_all_and_may_read_the_servers_own_file() -> None:
    """Redis 7.0 replays its appendonly file as this user, and leaves out what that may not do."""
    given = {f"REDIS_{name.upper()}_PASSWORD": PASSWORDS[name] for name in ("producer", "worker", "flower")}
    done = subprocess.run(
        ["sh", ROOT / "deploy" / "redis_acl.sh"], env=given | {"PATH": "/usr/bin:/bin"}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    (rules,) = [line.split()[2:] for line in done.stdout.splitlines() if line.startswith("user default ")]
    assert rules[0] == "off"
    assert "nopass" not in rules
    assert not [rule for rule in rules if rule.startswith((">", "#"))], "it has no password either"
    assert {"~*", "&*", "+@all"} <= set(rules)

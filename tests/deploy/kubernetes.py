"""What stands in the files of deploy/kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("deployment", "batch")


def documents(folder: str) -> list[dict[str, Any]]:
    """What a folder's kustomization.yaml names."""
    found = []
    for name in yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())["resources"]:
        if name.startswith("../"):
            found += documents(name.removeprefix("../"))
        else:
            found += list(yaml.safe_load_all((FOLDER / folder / name).read_text()))
    return found


EVERYTHING = {
    (one["kind"], one["metadata"]["name"]): one for overlay in OVERLAYS for one in documents(overlay)
}
PODS = {
    name: one["spec"]["template"]["spec"]
    for name, one in EVERYTHING.items()
    if "template" in one.get("spec", {})
}
OURS = {name: pod for name, pod in PODS.items() if pod["containers"][0]["image"].startswith("imagemill:")}
WORKERS = (("Deployment", "worker"), ("Job", "workers"))


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    [container] = pod["containers"]
    return {one["name"]: one.get("value") for one in container.get("env", [])}


def secrets(pod: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Variable -> the Secret and the key in it that its value comes from."""
    [container] = pod["containers"]
    keys = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef") for one in container.get("env", [])}
    return {name: (key["name"], key["key"]) for name, key in keys.items() if key}

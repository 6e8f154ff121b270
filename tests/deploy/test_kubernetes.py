"""The files in deploy/kubernetes agree with this program: commands, variables, names, volumes, probes.

No cluster is needed. Against Kubernetes' own schemas they were checked by hand: docs/deploy.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from jobs.settings import PREFIX, Settings, variable_of
from producer.cli import command as producer_command
from producer.manifest.manifest import load_manifest
from producer.metrics.families import REDIS_UP, SHARDS
from producer.serve.doors import HEALTH
from producer.serve.figures import METRICS
from tests.deploy.kubernetes import EVERYTHING, FOLDER, OURS, OVERLAYS, PODS, WORKERS, secrets, variables
from worker.cli import command as worker_command
from worker.host import exit_status
from worker.host.imagemill_worker import WAITING
from worker.host.supervisor import Pace

PROGRAMS = {"imagemill": producer_command, "imagemill-worker": worker_command}


def test_every_pod_is_known() -> None:
    assert PODS.keys() == {("StatefulSet", "redis"), ("Job", "submit"), ("Deployment", "serve"), *WORKERS}
    assert OURS.keys() == PODS.keys() - {("StatefulSet", "redis")}
    for (_kind, name), one in EVERYTHING.items():
        assert one["metadata"].get("namespace", name) == "imagemill"


@pytest.mark.parametrize("name", PODS, ids="/".join)
def test_no_service_becomes_a_variable_and_no_pod_may_do_more_than_it_must(name: tuple[str, str]) -> None:
    pod = PODS[name]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        own = {one["metadata"]["name"] for one in EVERYTHING[name]["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])} | own
    claims = {
        one["persistentVolumeClaim"]["claimName"]
        for one in pod.get("volumes", [])
        if len(one) == 2 and "persistentVolumeClaim" in one
    }
    assert all(("PersistentVolumeClaim", claim) in EVERYTHING for claim in claims)


def test_no_service_has_a_name_that_would_become_a_setting() -> None:
    names = [name for kind, name in EVERYTHING if kind == "Service"]
    assert set(names) == {"redis", "serve"}
    assert not any(name.upper().replace("-", "_").startswith(PREFIX.rstrip("_")) for name in names)


@pytest.mark.parametrize("name", OURS, ids="/".join)
def test_its_command_is_one_of_ours_and_its_variables_are_settings(
    name: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = OURS[name]
    [container] = pod["containers"]
    program, *words = container["command"]
    if program == "sh":
        [script, _, *arguments] = words[1:]
        [(program, subcommand)] = re.findall(r'exec ([\w-]+) (\w+) "\$@"$', script)
        words = [subcommand, *arguments]
    words = [word.replace("/manifests/", f"{FOLDER}/base/manifests/") for word in words]
    command: click.Command = PROGRAMS[program]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        program, *words = words
        command = command.commands[program]
    command.make_context(program, words)
    given = variables(pod)
    for variable, value in given.items():
        if variable.startswith(PREFIX):
            monkeypatch.setenv(variable, value)
    known = set(map(variable_of, Settings.model_fields))
    assert {variable for variable in given if variable.startswith(PREFIX)} <= known
    settings = Settings()
    order = list(given)
    assert order.index("REDIS_PASSWORD") < order.index("IMAGEMILL_REDIS_URL"), "else it is not put in"
    redis = EVERYTHING["Service", "redis"]
    assert given["IMAGEMILL_REDIS_URL"].endswith(
        f"@{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}/0"
    )
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {settings.output_root, str(settings.runtime_dir), given["XDG_CACHE_HOME"], "/tmp"} <= mounts
    assert given["HF_HOME"].startswith("/cache/")


def test_redis_keeps_its_data_and_drops_none() -> None:
    pod = PODS[("StatefulSet", "redis")]
    [container] = pod["containers"]
    script = container["command"][-1]
    for line in ("maxmemory-policy noeviction", "appendonly yes", "aclfile /data/users.acl", "dir /data"):
        assert line in script
    assert container["volumeMounts"][0] == {"name": "data", "mountPath": "/data"}
    labels = EVERYTHING[("StatefulSet", "redis")]["spec"]["template"]["metadata"]["labels"]
    assert EVERYTHING[("Service", "redis")]["spec"]["selector"] == labels
    assert EVERYTHING[("NetworkPolicy", "redis")]["spec"]["podSelector"]["matchLabels"] == labels


@pytest.mark.parametrize(
    ("name", "user"),
    [
        (("Job", "submit"), "producer"),
        (("Deployment", "serve"), "producer"),
        *((one, "worker") for one in WORKERS),
    ],
)
def test_each_pod_comes_to_redis_as_its_own_user_and_knows_no_other_password(
    name: tuple[str, str], user: str
) -> None:
    assert variables(PODS[name])["IMAGEMILL_REDIS_URL"].startswith(f"redis://{user}:$(REDIS_PASSWORD)@")
    known = {variable: key for variable, key in secrets(PODS[name]).items() if key[0] == "redis"}
    assert known == {"REDIS_PASSWORD": ("redis", user)}


def test_redis_has_the_users_of_the_script_that_containers_run() -> None:
    copy = FOLDER / "base" / "redis_acl.sh"
    assert copy.read_bytes() == (FOLDER.parent / copy.name).read_bytes(), "copy it again"
    pod = PODS["StatefulSet", "redis"]
    users = ("producer", "worker", "flower")
    passwords = {f"REDIS_{user.upper()}_PASSWORD": ("redis", user) for user in users}
    assert secrets(pod) == passwords | {"VALKEYCLI_AUTH": ("redis", "worker")}
    [container] = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert "--user worker" in container[probe]["exec"]["command"][-1]
    [volume] = pod["volumes"]
    generated = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["configMapGenerator"]
    assert {"name": volume["configMap"]["name"], "namespace": "imagemill", "files": [copy.name]} in generated


def references(one: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of the ConfigMaps, Secrets and claims that an object needs, wherever they stand in it."""
    keys = {
        "configMap": ("ConfigMap", "name"),
        "secret": ("Secret", "secretName"),
        "secretKeyRef": ("Secret", "name"),
        "secretRef": ("Secret", "name"),
        "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    }
    for key, value in (
        one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
    ):
        if key in keys and not value.get("optional"):
            kind, name = keys[key]
            yield kind, value[name]
        yield from references(value)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("components", [(), ("cpu",), ("bucket",), ("cpu", "bucket"), ("keda", "operator")])
def test_what_a_pod_needs_is_there_by_its_name_in_its_namespace(
    overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    """As kustomize writes it. Without kubectl, the test reads the namespaces of what kustomize generates."""
    given = {("Secret", name) for name in ("redis", "serve", *(["bucket"] if "bucket" in components else []))}
    program = shutil.which("kubectl")
    if program is None:
        for name in ("base", *components):
            generated = yaml.safe_load((FOLDER / name / "kustomization.yaml").read_text())
            spaces = {one["namespace"] for one in generated.get("configMapGenerator", [])}
            assert spaces <= {"imagemill"}
        return
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    file = tmp_path / "kubernetes" / overlay / "kustomization.yaml"
    named = ", ".join(f"../{name}" for name in components)
    file.write_text(file.read_text().replace("components: []", f"components: [{named}]"))
    ran = subprocess.run([program, "kustomize", file.parent], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    written = list(yaml.safe_load_all(ran.stdout))
    assert {one["metadata"].get("namespace") for one in written if one["kind"] != "Namespace"} == {
        "imagemill"
    }
    there = {(one["kind"], one["metadata"]["name"]) for one in written}
    assert {found for one in written for found in references(one)} - there == given


@pytest.mark.parametrize("name", WORKERS, ids="/".join)
def test_a_worker_has_longer_to_stop_than_it_takes(name: tuple[str, str]) -> None:
    assert PODS[name]["terminationGracePeriodSeconds"] > Pace().grace + Pace().after_kill


def test_the_workers_that_leave_are_started_again_by_their_exit_status() -> None:
    spec = EVERYTHING[("Job", "workers")]["spec"]
    assert "--until-idle" in PODS[("Job", "workers")]["containers"][0]["command"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    rules = {
        status: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        for status in rule.get("onExitCodes", {}).get("values", [])
    }
    assert rules == {
        exit_status.of_signal(15): "Ignore",
        exit_status.REFUSED: "FailIndex",
        exit_status.ALL_REFUSED: "FailIndex",
    }
    assert exit_status.NO_REDIS not in rules, "it counts as a failure, after which another pod starts"


def probe(name: tuple[str, str], kind: str, folder: Path) -> int:
    [container] = PODS[name]["containers"]
    command = container[kind]["exec"]["command"]
    env = {**os.environ, "IMAGEMILL_RUNTIME_DIR": str(folder)}
    return subprocess.run(command, env=env, stderr=subprocess.DEVNULL, check=False).returncode


def test_the_probes_of_a_worker_read_the_age_of_its_beat(tmp_path: Path) -> None:
    deployment, job = WORKERS
    assert probe(deployment, "readinessProbe", tmp_path) != 0
    assert probe(deployment, "livenessProbe", tmp_path) == 0, "it may wait for Redis for any time"
    (tmp_path / "beats").mkdir()
    waiting = tmp_path / "beats" / f"{WAITING}@{os.uname().nodename}"
    waiting.touch()
    assert probe(deployment, "readinessProbe", tmp_path) != 0, "a rollout must not go on to an unknown Redis"
    assert probe(deployment, "livenessProbe", tmp_path) == 0
    waiting.unlink()
    beat = tmp_path / "beats" / f"gpu0@{os.uname().nodename}"
    other = tmp_path / "beats" / "gpu0@another"
    other.touch()
    os.utime(other, (1, 1))
    assert probe(deployment, "livenessProbe", tmp_path) == 0, "another one's is none of its own"
    beat.touch()
    assert [probe(deployment, kind, tmp_path) for kind in ("readinessProbe", "livenessProbe")] == [0, 0]
    old = time.time() - 300
    os.utime(beat, (old, old))
    assert probe(deployment, "readinessProbe", tmp_path) != 0
    assert [probe(name, "livenessProbe", tmp_path) for name in (deployment, job)] == [1, 1]


def manifests() -> Iterator[Path]:
    yield from FOLDER.glob("*/manifests/*.yaml")


@pytest.mark.parametrize("file", manifests(), ids=lambda file: file.parents[1].name)
def test_the_manifests_load_and_lie_below_the_root_of_outputs(file: Path) -> None:
    manifest = load_manifest(file)
    assert manifest.model == "shapes"
    assert f"/manifests/{file.name}" in PODS[("Job", "submit")]["containers"][0]["command"]


def test_the_component_for_a_bucket_changes_what_is_there() -> None:
    component = yaml.safe_load((FOLDER / "bucket" / "kustomization.yaml").read_text())
    [generator] = component["configMapGenerator"]
    assert (generator["name"], generator["behavior"]) == ("manifests", "replace")
    root = set()
    for one in component["patches"]:
        patch = yaml.safe_load(one["patch"])
        if "target" not in one:
            assert (patch["kind"], patch["metadata"]["name"]) in EVERYTHING
            continue
        pod = PODS[(one["target"]["kind"], one["target"]["name"])]
        change = patch["spec"]["template"]["spec"]
        [container] = change["containers"]
        assert container["name"] == pod["containers"][0]["name"]
        root |= {variable["value"] for variable in container["env"]}
        volumes = {volume["name"] for volume in change["volumes"]}
        assert volumes == {"outputs", "spool"}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    [place] = root
    output = yaml.safe_load((FOLDER / "bucket" / "manifests" / "demo.yaml").read_text())["output"]
    assert output.startswith(f"{place}/")


def test_the_component_without_gpus_changes_what_is_there() -> None:
    component = yaml.safe_load((FOLDER / "cpu" / "kustomization.yaml").read_text())
    [one] = component["patches"]
    name, _, value = one["target"]["labelSelector"].partition("=")
    for worker in WORKERS:
        assert EVERYTHING[worker]["metadata"]["labels"][name] == value
        container = PODS[worker]["containers"][0]
        assert "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["command"][1:3] == ["--gpus", "all"]
        assert PODS[worker]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert re.findall(r"path: (\S+)", one["patch"]) == [
        "/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu",
        "/spec/template/spec/tolerations",
        "/spec/template/spec/containers/0/command/2",
    ]


def test_the_commands_of_the_documents_make_what_the_pods_need(tmp_path: Path) -> None:
    page = (FOLDER.parents[1] / "docs" / "deploy.md").read_text("utf-8")
    [commands] = re.findall(r"```bash\n(kubectl create namespace.*?)```", page, re.DOTALL)
    (tmp_path / "kubectl").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path / "asked"}\n')
    (tmp_path / "kubectl").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", commands], env=env, check=True)
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("create namespace imagemill\n")
    made = {
        name: {*re.findall(r"--from-literal=(\w+)=[0-9a-f]{48}(?=\s)", literals)}
        for name, literals in re.findall(r"^-n imagemill create secret generic (\w+)(.*\n)", asked, re.M)
    }
    [token] = (
        one["secret"]["secretName"] for one in PODS["Deployment", "serve"]["volumes"] if "secret" in one
    )
    needed = {key for pod in PODS.values() for key in secrets(pod).values() if key[0] != "huggingface"}
    assert {(name, key) for name, keys in made.items() for key in keys} == {*needed, (token, "token")}
    [target] = re.findall(r"^-n imagemill exec (\w+)/(\w+) -- imagemill", asked, re.M)
    assert target == ("deploy", "serve")
    assert variables(PODS["Deployment", "serve"])["IMAGEMILL_REDIS_URL"].startswith("redis://producer:")
    [folder] = re.findall(r"^apply --kustomize deploy/kubernetes/(\w+)$", asked, re.M)
    assert folder in OVERLAYS


def test_the_pages_are_served_where_their_service_and_their_probes_look() -> None:
    [container] = PODS["Deployment", "serve"]["containers"]
    [port], [of_service] = container["ports"], EVERYTHING["Service", "serve"]["spec"]["ports"]
    command = container["command"]
    assert command[command.index("--port") + 1] == str(port["containerPort"]) == str(of_service["port"])
    assert of_service["targetPort"] == port["name"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": HEALTH, "port": port["name"]}
    labels = EVERYTHING["Deployment", "serve"]["spec"]["template"]["metadata"]["labels"]
    assert EVERYTHING["Service", "serve"]["spec"]["selector"] == labels
    token = Path(command[command.index("--token-file") + 1])
    assert {"name": "token", "mountPath": str(token.parent), "readOnly": True} in container["volumeMounts"]


def test_the_prometheus_operator_finds_the_pages_their_token_and_the_name_that_alerts_look_for() -> None:
    [monitor] = yaml.safe_load_all((FOLDER / "operator" / "monitor.yaml").read_text())
    service = EVERYTHING["Service", "serve"]
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    [endpoint] = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (service["spec"]["ports"][0]["name"], METRICS)
    command = PODS["Deployment", "serve"]["containers"][0]["command"]
    [secret] = (one for one in PODS["Deployment", "serve"]["volumes"] if "secret" in one)
    token = Path(command[command.index("--token-file") + 1]).name
    credentials = endpoint["authorization"]["credentials"]
    assert credentials == {"name": secret["secret"]["secretName"], "key": token}
    [of_all] = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["labels"]
    job = of_all["pairs"][monitor["spec"]["jobLabel"]]
    assert f'up{{job="{job}"}} == 0' in (FOLDER.parent / "prometheus" / "alerts.yml").read_text()


def test_keda_scales_the_workers_that_stay() -> None:
    scaled = yaml.safe_load((FOLDER / "keda" / "scaling.yaml").read_text())
    assert ("Deployment", scaled["spec"]["scaleTargetRef"]["name"]) in WORKERS
    assert "replicas" not in EVERYTHING["Deployment", "worker"]["spec"], (
        "applying it would undo KEDA's number"
    )
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["metadata"]["threshold"] == str(Settings().concurrency)


def test_keda_takes_no_worker_away_while_redis_or_the_pages_are_away() -> None:
    """Then there is no figure: KEDA takes that for 0 unless it is told not to, so 0 has to be said."""
    scaled = yaml.safe_load((FOLDER / "keda" / "scaling.yaml").read_text())
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    shards, told_nothing_waits = trigger["metadata"]["query"].split(" or ")
    assert shards == 'sum(imagemill_shards{state=~"waiting|leased"})'
    assert told_nothing_waits == f"0 * sum({REDIS_UP.name} == 1)"


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ({"waiting": 3, "leased": 2, "paused": 5, "refused": 7}, 5),
        ({"paused": 5, "refused": 7, "leased": 0}, 0),
        ({}, 0),
        (None, None),
    ],
)
def test_keda_asks_for_workers_for_what_one_more_worker_would_render(
    told: dict[str, int] | None, asked: int | None, tmp_path: Path
) -> None:
    """`told`: shards by state; None while Redis is away."""
    [trigger] = yaml.safe_load((FOLDER / "keda" / "scaling.yaml").read_text())["spec"]["triggers"]
    shards = None if told is None else {("shapes", state): count for state, count in told.items()}
    answers(trigger["metadata"]["query"], shards, asked, tmp_path)


@pytest.mark.parametrize(
    ("told", "asked", "others"),
    [
        ({("org/sdxl", "waiting"): 3, ("org/flux", "leased"): 2, ("org/sd", "waiting"): 7}, 5, 7),
        ({("org/sdxl", "refused"): 3, ("org/sdxl-2", "waiting"): 1}, 0, 1),
        ({}, 0, 0),
        (None, None, None),
    ],
)
def test_keda_asks_for_workers_of_a_kind_for_the_models_that_it_takes(
    told: dict[tuple[str, str], int] | None, asked: int | None, others: int | None, tmp_path: Path
) -> None:
    page = (FOLDER.parents[1] / "docs" / "deploy.md").read_text("utf-8")
    [query] = re.findall(r"^  query: (sum\(imagemill_shards\{model=.*)$", page, re.M)
    [command] = re.findall(r"^  command: (\[imagemill-worker, .*--model.*)$", page, re.M)
    models = "|".join(yaml.safe_load(command)[4::2])
    assert f'model=~"{models}"' in query
    assert f'`model!~"{models}"`' in page
    answers(query, told, asked, tmp_path)
    answers(query.replace("model=~", "model!~"), told, others, tmp_path)


def answers(query: str, told: dict[tuple[str, str], int] | None, asked: int | None, folder: Path) -> None:
    """Sees that Prometheus answers so; without promtool (Debian: prometheus), other tests read the query.

    `told`: shards by model and state; None while Redis is away.
    """
    program = shutil.which("promtool")
    if program is None:
        return
    series = [{"series": REDIS_UP.name, "values": f"{int(told is not None)}x5"}]
    series += [
        {
            "series": f'{SHARDS.name}{{job_id="cats-1", model="{model}", state="{state}"}}',
            "values": f"{count}x5",
        }
        for (model, state), count in (told or {}).items()
    ]
    expected = [] if asked is None else [{"labels": "{}", "value": asked}]
    one = {"expr": query, "eval_time": "3m", "exp_samples": expected}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [one]}
    (folder / "keda.yml").write_text(yaml.safe_dump({"tests": [test]}))
    ran = subprocess.run(
        [program, "test", "rules", folder / "keda.yml"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr

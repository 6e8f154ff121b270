"""ComfyUI's graph of nodes, from the form that it runs (`prompt`) or the one that it shows (`workflow`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from producer.importing.json_text import json_object
from producer.importing.recipe import Untold

MOST_HOPS: Final = 100
"""Nodes that are followed one after the other: a graph may go round in circles."""
_WIDGETS: Final[Mapping[str, tuple[str | None, ...]]] = {
    "KSampler": ("seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", None, "steps", "cfg", "sampler_name", "scheduler", "start_at_step",
        "end_at_step", "return_with_leftover_noise",
    ),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
}  # fmt: skip
"""The names of a node's values, which a workflow lists without them; None is no input of the node."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its class, and its inputs, each a value or a link `[node, output]`."""

    id: str
    kind: str
    inputs: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} (node {self.id})"


@dataclass(frozen=True, slots=True)
class Graph:
    """All nodes by their ids."""

    nodes: Mapping[str, Node]

    def source(self, node: Node, name: str) -> Node | None:
        """The node whose output the input is; None where it is a value, or missing."""
        for _ in range(MOST_HOPS):
            link = node.inputs.get(name)
            if not isinstance(link, list) or len(link) != 2 or not isinstance(link[0], (str, int)):
                return None
            found = self.nodes.get(str(link[0]))
            if found is None or found.kind != "Reroute" or len(found.inputs) != 1:
                return found
            node, [name] = found, found.inputs
        return None

    def value(self, node: Node, name: str, kinds: tuple[type, ...]) -> Any:
        """The value of an input, which may come from a node with one value of that kind, as primitives have.

        None where it cannot be told.
        """
        for _ in range(MOST_HOPS):
            found = node.inputs.get(name)
            if type(found) in kinds:
                return found
            below = self.source(node, name)
            if below is None:
                return None
            values = [key for key, one in below.inputs.items() if type(one) in kinds]
            links = [key for key in below.inputs if self.source(below, key) is not None]
            names = values if not links else links if not values else []
            if len(names) != 1:
                return None
            node, name = below, names[0]
        return None

    def of_kinds(self, kinds: frozenset[str]) -> list[Node]:
        """The nodes of these classes, in the order of the file."""
        return [node for node in self.nodes.values() if node.kind in kinds]


def read_graph(prompt: str | None, workflow: str | None) -> Graph:
    """The graph in `prompt`, or else in `workflow`. Raises Untold where neither holds one."""
    found = {} if prompt is None else dict(_run(json_object(prompt)))
    if not found and workflow is not None:
        found = dict(_shown(json_object(workflow)))
    if not found:
        raise Untold("its graph has no nodes")
    return Graph(found)


def _run(said: Mapping[str, Any]) -> Iterator[tuple[str, Node]]:
    for name, node in said.items():
        if isinstance(node, dict) and isinstance(node.get("class_type"), str):
            inputs = node.get("inputs")
            yield name, Node(name, node["class_type"], inputs if isinstance(inputs, dict) else {})


def _shown(said: Mapping[str, Any]) -> Iterator[tuple[str, Node]]:
    links = {
        link[0]: [str(link[1]), link[2]]
        for link in _listed(said.get("links"))
        if isinstance(link, list) and len(link) >= 5 and isinstance(link[0], (int, str))
    }
    for node in _listed(said.get("nodes")):
        if not isinstance(node, dict) or not isinstance(node.get("type"), str) or node.get("mode") in (2, 4):
            continue
        kind = node["type"]
        values = node.get("widgets_values")
        inputs: dict[str, Any] = dict(values) if isinstance(values, dict) else {}
        names = _WIDGETS.get(kind)
        if names is None:
            inputs |= {f"value {n}": value for n, value in enumerate(_listed(values))}
        else:
            inputs |= {name: value for name, value in zip(names, _listed(values), strict=False) if name}
        for one in _listed(node.get("inputs")):
            if isinstance(one, dict) and isinstance(one.get("link"), (int, str)) and one["link"] in links:
                inputs[str(one.get("name"))] = links[one["link"]]
        yield str(node.get("id")), Node(str(node.get("id")), kind, inputs)


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

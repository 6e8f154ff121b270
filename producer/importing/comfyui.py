"""Pictures of ComfyUI: what its graph of nodes says, followed from the sampler to texts, noise and model.

Source: ComfyUI's `nodes.py`. Nodes of other authors are named, never guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobs.wording import some
from producer.importing.comfy_graph import MOST_HOPS, Graph, Node, read_graph
from producer.importing.recipe import NO_EQUAL, Draft, NamedModel, Untold

_SAMPLERS: Final = frozenset({"KSampler", "KSamplerAdvanced"})
_EMPTY: Final = frozenset({"EmptyLatentImage", "EmptySD3LatentImage"})
_LOADERS: Final = {"CheckpointLoaderSimple": "ckpt_name", "UNETLoader": "unet_name"}
_FOLLOWED: Final = frozenset(
    {
        *_SAMPLERS, *_EMPTY, *_LOADERS, "CLIPTextEncode", "CLIPTextEncodeSDXL", "VAEDecode",
        "VAEDecodeTiled", "SaveImage", "PreviewImage", "SaveAnimatedWEBP", "CLIPLoader", "DualCLIPLoader",
        "TripleCLIPLoader", "Note", "MarkdownNote", "PrimitiveNode", "Reroute", "PrimitiveInt",
        "PrimitiveFloat", "PrimitiveString", "PrimitiveStringMultiline", "PreviewAny",
    }
)  # fmt: skip
"""Classes that are read, or change no pixel."""
_NUMBERS: Final = (int, float)


def read_comfyui(texts: Mapping[str, str]) -> Draft:
    """What the graph says. Raises Untold where it does not tell which prompt made the picture."""
    graph = read_graph(texts.get("prompt"), texts.get("workflow"))
    draft = Draft("ComfyUI")
    sampler, others = _first_pass(graph)
    draft.take_texts(_text(graph, sampler, "positive"), _text(graph, sampler, "negative"))
    advanced = sampler.kind == "KSamplerAdvanced"
    draft.take("seed", graph.value(sampler, "noise_seed" if advanced else "seed", _NUMBERS), "seed")
    draft.take("num_inference_steps", graph.value(sampler, "steps", _NUMBERS), "steps")
    draft.take("guidance_scale", graph.value(sampler, "cfg", _NUMBERS), "cfg")
    draft.take_sampler(
        graph.value(sampler, "sampler_name", (str,)), graph.value(sampler, "scheduler", (str,))
    )
    _take_latents(draft, graph, sampler)
    draft.model = _model(graph, sampler)
    _lose_passes(draft, graph, sampler, others)
    for node in graph.nodes.values():
        if node.kind not in _FOLLOWED:
            draft.lose(_described(node), NO_EQUAL)
    return draft


def _first_pass(graph: Graph) -> tuple[Node, list[Node]]:
    """The sampler that begins with noise alone, and the others."""
    samplers = graph.of_kinds(_SAMPLERS)
    if not samplers:
        names = [str(node) for node in graph.nodes.values() if "sampler" in node.kind.casefold()]
        what = f"is painted by {some(names)}" if names else "has no sampler"
        raise Untold(f"its graph {what}: only KSampler and KSamplerAdvanced are read")
    if len(samplers) == 1:
        return samplers[0], []
    first = [node for node in samplers if _latents(graph, node) is not None]
    if len(first) != 1:
        names = [str(node) for node in first or samplers]
        raise Untold(f"its graph has {some(names)}: which of them painted this picture cannot be told")
    return first[0], [node for node in samplers if node is not first[0]]


def _latents(graph: Graph, sampler: Node) -> Node | None:
    """The empty latents that a sampler begins with; None where it continues another picture."""
    node: Node | None = sampler
    name = "latent_image"
    for _ in range(MOST_HOPS):
        node = None if node is None else graph.source(node, name)
        if node is None or node.kind in _EMPTY:
            return node
        if node.kind in _SAMPLERS or node.kind.startswith("VAEEncode"):
            return None
        name = "samples" if "samples" in node.inputs else ""
    return None


def _text(graph: Graph, sampler: Node, role: str) -> str:
    """The prompt or the negative prompt of a sampler. Raises Untold with the node where the way ends."""
    node = graph.source(sampler, role)
    for _ in range(MOST_HOPS):
        if node is None:
            break
        if node.kind == "ConditioningZeroOut" and role == "negative":
            return ""
        if node.kind in ("CLIPTextEncode", "CLIPTextEncodeSDXL"):
            keys = ("text",) if node.kind == "CLIPTextEncode" else ("text_g", "text_l")
            texts = [graph.value(node, key, (str,)) for key in keys]
            if texts[0] is None or texts[0] != texts[-1]:
                raise Untold(
                    f"its {role} prompt cannot be told: {node} takes it from nodes that are not read"
                )
            return str(texts[0])
        below = graph.source(node, "conditioning")
        below = graph.source(node, role) if below is None else below
        if below is None:
            raise Untold(f"its {role} prompt cannot be told: {node} is not read, only CLIPTextEncode is")
        node = below
    raise Untold(f"its {role} prompt cannot be told: {sampler} has no text that can be followed")


def _take_latents(draft: Draft, graph: Graph, sampler: Node) -> None:
    empty = _latents(graph, sampler)
    if empty is None:
        draft.lose(
            f"latent_image of {sampler}",
            "it was painted over another picture or by nodes that are not read, and the file lacks that",
        )
        return
    draft.take("width", graph.value(empty, "width", _NUMBERS), "width")
    draft.take("height", graph.value(empty, "height", _NUMBERS), "height")
    batch = graph.value(empty, "batch_size", _NUMBERS)
    if batch not in (None, 1):
        draft.lose(
            f"batch_size: {batch}", "which one of the batch this is cannot be told: the first has this seed"
        )


def _model(graph: Graph, sampler: Node) -> NamedModel:
    node: Node | None = sampler
    for _ in range(MOST_HOPS):
        node = None if node is None else graph.source(node, "model")
        if node is not None and node.kind in _LOADERS:
            name = graph.value(node, _LOADERS[node.kind], (str,))
            return NamedModel("" if name is None else name)
    return NamedModel()


def _lose_passes(draft: Draft, graph: Graph, sampler: Node, others: list[Node]) -> None:
    denoise = graph.value(sampler, "denoise", _NUMBERS)
    if denoise not in (None, 1):
        draft.lose(f"denoise: {denoise}", "imagemill denoises whole, and the picture will differ")
    start, end = (graph.value(sampler, name, _NUMBERS) for name in ("start_at_step", "end_at_step"))
    steps = draft.settings.get("num_inference_steps", 0)
    if start not in (None, 0) or (end is not None and end < steps):
        draft.lose(f"steps {start} to {end}", "imagemill takes all steps, and the picture will differ")
    for node in others:
        draft.lose(str(node), "it painted over the first picture, which imagemill does not do")


def _described(node: Node) -> str:
    values = [str(value) for value in node.inputs.values() if type(value) in (str, int, float)]
    return f"{node.kind}: {', '.join(values)}" if values else node.kind

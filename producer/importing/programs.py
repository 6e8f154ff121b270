"""Which program made a picture, told by the texts in its file."""

from __future__ import annotations

from pathlib import Path

from jobs.strict_json import strict_json
from producer.importing import a1111, comfyui, invokeai, json_settings, own
from producer.importing.picture_texts import XMP, PictureTexts, read_texts
from producer.importing.recipe import Draft, Recipe, Untold


def read_recipe(file: Path) -> Recipe:
    """How the picture in `file` was made. Raises Untold with why it cannot be told."""
    found = read_texts(file)
    return _draft(found, file).recipe(str(file), found.size)


def _draft(found: PictureTexts, file: Path) -> Draft:
    texts = found.texts
    if found.request is not None:
        return own.read_request(found.request, file)
    parameters = texts.get("parameters")
    if parameters is not None and parameters.strip():
        return _of_parameters(parameters)
    if "invokeai_metadata" in texts:
        return invokeai.read_metadata(texts["invokeai_metadata"])
    if "sd-metadata" in texts:
        return invokeai.read_sd_metadata(texts["sd-metadata"])
    if "Dream" in texts:
        return invokeai.read_dream(texts["Dream"])
    if texts.get("Software", "").startswith("NovelAI") and "Comment" in texts:
        return json_settings.read_novelai(texts)
    comment = json_settings.draw_things_text(texts.get(XMP, ""))
    if comment is not None:
        return json_settings.read_draw_things(comment)
    if "prompt" in texts or "workflow" in texts:
        return comfyui.read_comfyui(texts)
    held = ", ".join(sorted(texts)[:5])
    raise Untold(
        f"holds no settings of a program that is read (it holds {held})"
        if held
        else "holds no text: nothing tells how it was made"
    )


def _of_parameters(text: str) -> Draft:
    """A1111, SwarmUI and Fooocus write under the same keyword, the latter two an object."""
    if text.lstrip().startswith("{"):
        try:
            said = strict_json(text)
        except ValueError:
            said = None  # a prompt may begin with a brace
        if isinstance(said, dict) and isinstance(said.get("sui_image_params"), dict):
            return json_settings.read_swarmui(said["sui_image_params"])
        if isinstance(said, dict) and "base_model" in said:
            return json_settings.read_fooocus(said)
    return a1111.read_parameters(text)

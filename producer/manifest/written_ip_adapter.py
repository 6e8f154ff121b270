"""`ip_adapter` of a manifest: a file, or a file of a model, as diffusers' `load_ip_adapter` names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from jobs.model_files.hub import is_commit
from jobs.models.models import FurtherRef, IpAdapterRef, PartOf, is_path
from producer.manifest.fields import ModelName, PathText, Revision
from producer.manifest.setting_fields import Strict

_USUAL: Final = "image_encoder"
"""diffusers' default of image_encoder_folder."""


class WrittenImageEncoder(Strict):
    """The model by which an IP-Adapter sees pictures."""

    model: ModelName
    """A folder as save_pretrained() writes it (begins with ./ ../ ~ or /), or a Hugging Face id."""
    subfolder: PathText | None = None
    """The folder in `model` that holds it."""
    revision: Revision | None = None
    """The commit, branch or tag of a Hugging Face id, or the sha256:… of a folder."""


def _as_model(value: object) -> object:
    """A bare name as a mapping."""
    return {"model": value} if isinstance(value, str) else value


ImageEncoder = Annotated[
    WrittenImageEncoder, BeforeValidator(_as_model, json_schema_input_type=str | WrittenImageEncoder)
]


class WrittenIpAdapter(Strict):
    """The IP-Adapter by which images follow their `ip_adapter_image`."""

    file: PathText | None = None
    """Its .safetensors file, relative to the manifest; in place of `model`."""
    model: ModelName | None = None
    """A Hugging Face id, or a folder (begins with ./ ../ ~ or /), that holds `weight_name`."""
    subfolder: PathText | None = None
    """The folder in `model` that holds `weight_name`."""
    weight_name: PathText | None = None
    """The name of the .safetensors file in `model`."""
    revision: Revision | None = None
    """The commit, branch or tag of `model`."""
    image_encoder_folder: PathText | None = None
    """The folder in `model` that holds the image encoder, as in diffusers: a bare name is in `subfolder`.
    `image_encoder` when left out."""
    image_encoder: ImageEncoder | None = None
    """The image encoder where it is in no such folder: a folder or a Hugging Face id, or a mapping with
    `model`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """What the file must hold; whatever it holds when left out."""

    @model_validator(mode="after")
    def _file_or_model(self) -> Self:
        def refuse(below: str, what: str) -> None:
            raise PydanticCustomError("column", "{what}", {"what": what, "below": below})

        if (self.file is None) == (self.model is None):
            what = "needs `file`, or `model` with `weight_name`: give one of them"
            raise PydanticCustomError("column", "{what}", {"what": what})
        if self.model is not None and self.weight_name is None:
            refuse("model", "needs `weight_name`, the file in it: add it")
        if self.file is not None:
            for key in ("weight_name", "subfolder", "revision"):
                if getattr(self, key) is not None:
                    refuse(key, "needs `model` in place of `file`: remove it")
        if self.model is not None and is_path(self.model) and self.revision is not None:
            refuse("revision", "is of a hub repository, and `model` is a folder: remove it, or give `sha256`")
        if self.image_encoder is not None and self.image_encoder_folder is not None:
            refuse("image_encoder", "is in `image_encoder_folder` too: remove one of them")
        for key in ("subfolder", "weight_name", "image_encoder_folder"):
            name = getattr(self, key)
            if name is not None and (Path(name).is_absolute() or ".." in Path(name).parts):
                refuse(key, "must lie in `model`: correct it")
        return self

    @property
    def weights(self) -> PartOf:
        """Its file."""
        if self.file is not None:
            # A path even where it does not look like one.
            return PartOf(self.file if self.file.startswith(("/", "~")) else f"./{self.file}")
        return PartOf(str(self.model), _joined(self.subfolder, self.weight_name), self.revision)

    @property
    def encoder(self) -> PartOf:
        """Its image encoder."""
        given = self.image_encoder
        if given is not None:
            return PartOf(given.model, _joined(given.subfolder), given.revision)
        folder = _USUAL if self.image_encoder_folder is None else self.image_encoder_folder
        if self.model is None:
            return PartOf(str(Path(self.weights.model).parent), folder)
        # As diffusers has it: a path of several parts is from the top.
        below = None if len(Path(folder).parts) > 1 else self.subfolder
        return PartOf(self.model, _joined(below, folder), self.revision)

    def with_paths(self, renamed: Callable[[str, str], str]) -> Self:
        """The same with other paths: `renamed(text, key)` of those that are paths on this machine."""
        update: dict[str, Any] = {}
        if self.file is not None:
            update["file"] = renamed(self.file, "file")
        if self.model is not None and is_path(self.model):
            update["model"] = renamed(self.model, "model")
        if self.image_encoder is not None and is_path(self.image_encoder.model):
            model = renamed(self.image_encoder.model, "image_encoder")
            update["image_encoder"] = self.image_encoder.model_copy(update={"model": model})
        return self.model_copy(update=update)

    def pinned(self, found: IpAdapterRef) -> Self:
        """The same with what it was resolved to: the file's hash, and the image encoder's revision."""
        encoder, given = found.image_encoder, self.encoder
        subfolder = None if is_path(encoder.model) or not given.part else given.part
        revision = encoder.revision if subfolder is None else encoder.revision.partition(":")[0]
        exact = WrittenImageEncoder(model=encoder.model, subfolder=subfolder, revision=revision)
        update = {"image_encoder": exact, "image_encoder_folder": None, "sha256": found.sha256}
        return self.model_copy(update=update | {"revision": found.revision})

    def kept(self, files: Mapping[str, str]) -> IpAdapterRef | None:
        """What it was resolved to, where it is pinned: image_id depends on nothing else of it.

        files: those of its submission, path -> SHA-256.
        """
        encoder = self.image_encoder
        if self.sha256 is None or encoder is None or encoder.revision is None:
            return None
        below = f":{encoder.subfolder}" if is_commit(encoder.revision) and encoder.subfolder else ""
        named = FurtherRef(encoder.model, encoder.model, encoder.revision + below)
        name = Path(self.weights.part if self.file is None else self.weights.model).stem
        path = next((path for path, sha256 in files.items() if sha256 == self.sha256), "")
        return IpAdapterRef(path, name, self.sha256, self.revision, named)


def _as_ip_adapter(value: object) -> object:
    """A bare name as a mapping."""
    return {"file": value} if isinstance(value, str) else value


IpAdapter = Annotated[
    WrittenIpAdapter, BeforeValidator(_as_ip_adapter, json_schema_input_type=str | WrittenIpAdapter)
]
"""What a manifest may say."""


def _joined(*names: str | None) -> str:
    given = [name for name in names if name is not None]
    return Path(*given).as_posix() if given else ""

"""`imagemill import`: pictures into the recipes of one manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from jobs.errors import ManifestError
from jobs.models.models import name_trouble
from jobs.wording import counted, shortened, shown
from producer.importing.pictures import pictures_in
from producer.importing.programs import read_recipe
from producer.importing.recipe import Loss, NamedModel, Recipe, Untold

STAND_IN: Final = "instant"
"""The built-in model without weights, whose blocks of colour nobody takes for a picture."""
_MOST_MODELS: Final = 10


@dataclass(frozen=True, slots=True)
class Imported:
    """What pictures say, and which of them say nothing."""

    recipes: Sequence[Recipe]
    refused: Sequence[str]
    """`FILE: why`, for each picture that could not be read."""
    model: NamedModel
    of_job: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 when every picture is in the manifest, with or without losses; 1 when one is not."""
        return 1 if self.refused else 0

    def messages(self) -> list[str]:
        """A line for each picture that was not read, and one for each loss with the pictures that have it."""
        files: dict[Loss, list[str]] = {}
        for recipe in self.recipes:
            for loss in recipe.losses:
                files.setdefault(loss, []).append(recipe.file)
        unnamed = [] if self.model.model is not None else [_no_model(self.model)]
        return [*self.refused, *(f"{_files(names)}: {loss}" for loss, names in files.items()), *unnamed]


def import_pictures(paths: Iterable[Path], *, model: str | None = None, only: str | None = None) -> Imported:
    """Reads how the pictures were made, in their order.

    `model` stands in the manifest for the model of every picture; `only` leaves out pictures of a model with
    another name. Raises ManifestError where not one was read, or where one manifest cannot ask for all.
    """
    trouble = None if model is None else name_trouble(model)
    if trouble is not None:
        raise ManifestError(f"--model {model}: {trouble}")
    recipes: list[Recipe] = []
    refused: list[str] = []
    for file in pictures_in(paths):
        try:
            recipes.append(read_recipe(file))
        except Untold as error:
            refused.append(f"{shown(str(file))}: {shortened(str(error), 300)}")
    if only is not None:
        recipes = _only(recipes, only)
    if not recipes:
        if not refused:
            raise ManifestError(
                "there is no picture: name .png, .jpg or .webp files, or folders of them; of tars,"
                " `imagemill export --to files` makes folders"
            )
        raise ManifestError("\n".join(["no picture tells how it was made:", *refused]))
    return _one_job(recipes, refused, model)


def _only(recipes: list[Recipe], name: str) -> list[Recipe]:
    found = [recipe for recipe in recipes if recipe.model.name == name]
    if recipes and not found:
        raise ManifestError(f"--only {name}: no picture is of it: {_names(recipes)}")
    return found


def _one_job(recipes: list[Recipe], refused: list[str], model: str | None) -> Imported:
    if model is not None:
        recipes = [replace(recipe, model=NamedModel(model=model)) for recipe in recipes]
    models = _distinct(recipe.model for recipe in recipes)
    if len(models) > 1:
        raise ManifestError(
            f"the pictures are of {len(models)} models, and a manifest has one: give --only NAME for those of"
            f" one, or --model MODEL to render all with one: {_names(recipes)}"
        )
    jobs = {tuple(recipe.of_job.items()): recipe for recipe in recipes}
    if len(jobs) > 1:
        told = "; ".join(
            f"{shown(recipe.file)}: {', '.join(f'{name}: {value}' for name, value in job) or 'the defaults'}"
            for job, recipe in jobs.items()
        )
        raise ManifestError(
            f"the pictures differ in what a manifest has once: import those of each kind alone: {told}"
        )
    return Imported(recipes, refused, models[0], dict(recipes[0].of_job))


def _no_model(model: NamedModel) -> str:
    return (
        f"model {model}: the pictures do not tell where it is: give --model (a path or a Hugging"
        f" Face id), or write it into the manifest, where `{STAND_IN}` stands in and paints blocks of colour"
    )


def _distinct(named: Iterable[NamedModel]) -> list[NamedModel]:
    """The different models; one without a hash is that of the same name with one."""
    models = list(dict.fromkeys(named))
    hashed = {one.name for one in models if one.hash}
    return [one for one in models if one.hash or one.name not in hashed]


def _names(recipes: Sequence[Recipe]) -> str:
    counts = Counter(recipe.model for recipe in recipes)
    most = counts.most_common(_MOST_MODELS)
    named = [f"{one}, {counted(count, 'picture')}" for one, count in most]
    return "; ".join(named) + ("; …" if len(counts) > _MOST_MODELS else "")


def _files(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return shown(names[0]) + more

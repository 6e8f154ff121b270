"""What renders a pipeline: the stand-in, or a diffusion model."""

from __future__ import annotations

from jobs.settings import Settings
from worker.engine import Pipeline
from worker.renderer import Renderer


def load_renderer(pipeline: Pipeline, settings: Settings) -> Renderer:
    """Loads what renders a pipeline; torch is imported only here, and only for real models."""
    if pipeline.model == "instant":
        from worker.instant import InstantRenderer

        return InstantRenderer(settings.rows, settings.instant_seconds)
    import torch

    from worker.diffusion_renderer import DiffusionRenderer
    from worker.pipelines import load_model

    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    model = load_model(pipeline.model, pipeline.revision, pipeline.precision, settings.device)
    return DiffusionRenderer(model, settings.rows)

"""What renders a pipeline: the stand-in, or a diffusion model."""

from __future__ import annotations

import os
from functools import partial

from jobs.errors import ModelError
from jobs.settings import Settings
from worker.engine.renderer import Pipeline, Renderer
from worker.renderers.loading import Loading


def load_renderer(pipeline: Pipeline, settings: Settings, loading: Loading | None = None) -> Renderer:
    """Loads what renders a pipeline; torch is imported only here, and only for real models.

    `loading` is told how far it has come. Raises ModelError for a model that this worker does not take: the
    ledger offers no such model, unless a job's parts in Redis name two.
    """
    named = [pipeline.model, *(further.model for further in pipeline.further)]
    other = next((model for model in named if settings.models and model not in settings.models), None)
    if other is not None:
        raise ModelError(
            f"model = {other}: this worker takes {', '.join(settings.models)} alone (--model or "
            "IMAGEMILL_MODELS)"
        )
    if pipeline.model == "instant":
        from worker.renderers.instant import InstantRenderer

        return InstantRenderer(settings.instant_seconds)
    # cuBLAS reads it when CUDA starts: with workspaces of a fixed size its sums are cut the same every time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Read when transformers is imported: it remarks on torchvision, which nothing here uses.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    progress = Loading() if loading is None else loading
    with progress.stage("starting torch for", pipeline.model):
        import torch
        from diffusers import StableDiffusionPipeline

        from worker.diffusion.adapters import AdapterSwitch
        from worker.diffusion.compiling import require_compiler
        from worker.diffusion.precision import resolve_device, resolve_precision
        from worker.renderers.controlnets import load_controlnets
        from worker.renderers.diffusion_renderer import DiffusionRenderer
        from worker.renderers.image_encoders import load_image_encoder
        from worker.renderers.pipeline_renderer import PipelineRenderer
        from worker.renderers.pipelines import image_diffusion_model, load_pipeline
        from worker.renderers.two_renderers import BY_TABLES, TwoRenderers

    if settings.torch_compile:
        require_compiler()
    # Convolutions chosen by timing would differ from run to run.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the pipeline before this one held
    loaded = load_pipeline(
        pipeline.model, pipeline.revision, pipeline.precision, settings.device, loading=progress
    )
    device = resolve_device(settings.device)
    precision = resolve_precision(pipeline.precision, device)
    controlnets = load_controlnets(
        pipeline.further, precision, device, channels_last=settings.channels_last, loading=progress
    )
    encoder = load_image_encoder(pipeline.further, precision, device, progress)
    adapters = AdapterSwitch(loaded, compiled=settings.torch_compile, image_encoder=encoder)
    intercepting = partial(
        PipelineRenderer,
        loaded,
        model=pipeline.model,
        revision=pipeline.revision,
        adapters=adapters,
        controlnets=controlnets,
        moved=progress.advance,
    )
    with progress.stage("preparing", pipeline.model):
        if type(loaded) is StableDiffusionPipeline:
            model = image_diffusion_model(
                loaded,
                pipeline.precision,
                settings.device,
                compiled=settings.torch_compile,
                channels_last=settings.channels_last,
            )
            tables = DiffusionRenderer(model, adapters, moved=progress.advance)
            # The modules are prepared already, as the tables need them.
            pictures = intercepting(precision=model.precision, device=model.device, known=BY_TABLES)
            return TwoRenderers(tables, pictures)
        return intercepting(
            precision=precision,
            device=device,
            compiled=settings.torch_compile,
            channels_last=settings.channels_last,
        )

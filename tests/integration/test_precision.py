"""A manifest's precision goes through the queue to the model's own layers."""

import threading

import torch

from jobs.settings import Settings
from worker.runtime import Runtime


def test_amp_in_a_manifest_makes_linear_layers_see_bfloat16_under_autocast(farm) -> None:
    job_id = farm.submit(
        ["a red circle"], model="shapes-random", precision="amp", settings={"num_inference_steps": 2}
    )
    seen: set[torch.dtype] = set()

    def look(module: torch.nn.Module, inputs: tuple[object, ...]) -> None:
        if isinstance(module, torch.nn.Linear) and torch.is_autocast_enabled("cpu"):
            seen.update(value.dtype for value in inputs if isinstance(value, torch.Tensor))

    settings = Settings(output_root=farm.folder, min_free_disk=0, batch_size=2)
    runtime = Runtime(settings, farm.server.url, "w1", lambda _count: None)
    runtime.start()
    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        done = threading.Event()
        shard = runtime.serve(lambda _job, _shard: done.set())
        runtime.serve(lambda _job, _shard: None)
    finally:
        hook.remove()
        runtime.stop()
        runtime.close()
    assert done.is_set() and shard is not None and shard["ended"] == "committed"
    assert torch.bfloat16 in seen
    assert farm.status(job_id).outcome == "complete"
    (record,) = farm.records()
    assert (record["precision"], record["rendered_precision"]) == ("amp", "amp")

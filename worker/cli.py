"""`imagemill-worker`: the command line of a host's worker processes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from jobs.command_line import odd_surroundings
from jobs.errors import ImagemillError, SettingsError
from jobs.lifeline import LIFELINE_FD
from jobs.local_path import LocalPath
from jobs.wording import on_its_lines

if TYPE_CHECKING:
    from worker.logs import Format

_PATIENCE = 900.0
"""Seconds that a worker which is to leave by itself waits for Redis."""


class Seconds(click.FloatRange):
    """A duration within bounds; click takes `nan` for one."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """The number that a word is. Raises BadParameter for what is none, and for one beyond the bounds."""
        seconds: float = super().convert(value, param, context)
        if math.isnan(seconds):
            self.fail(f"{value} is no number of seconds", param, context)
        return seconds


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    "models",
    metavar="M",
    multiple=True,
    help="Take only jobs of this model (repeatable). Default: any.",
)
@click.option(
    "--gpus",
    default="auto",
    show_default=True,
    metavar="auto|all|any|0,1|none",
    help="Which GPUs to claim, a process each: all that are free, any one of them, these, or none (CPU). "
    "auto is all, or the CPU where there is no GPU.",
)
@click.option(
    "--batch-size",
    "--rows",
    type=click.IntRange(2, 1024),
    metavar="N",
    help="Slots of one forward; a guided image mostly takes two. Default: IMAGEMILL_BATCH_SIZE, else "
    "measured, once for a job and its workers.",
)
@click.option(
    "--mixed-hardware",
    is_flag=True,
    help="Join jobs that were begun on another kind of device, though bytes may differ between them.",
)
@click.option(
    "--concurrency",
    "--slots",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Shards a process holds at a time. Default: IMAGEMILL_CONCURRENCY or 2.",
)
@click.option(
    "--stall-limit",
    type=click.FloatRange(2, 86400),
    metavar="SECONDS",
    help="Without progress in a load or a forward for so long, a process ends and is started again. Default: "
    "IMAGEMILL_STALL_LIMIT or 1800.",
)
@click.option(
    "--until-idle",
    type=Seconds(1, 86400),
    is_flag=False,
    flag_value=60,
    metavar="[SECONDS]",
    help="Leave, with exit status 0, once nothing has been left for this host for so long: nothing waits, "
    "nobody renders what could come back, no job is being submitted. 60 without a number. Default: stay.",
)
@click.option(
    "--redis-patience",
    type=Seconds(1, 86400),
    metavar="SECONDS",
    help="Leave, with exit status 75, when Redis has given no answer for so long. Default: wait, with "
    "--until-idle for 900.",
)
@click.option(
    "--spot-notice",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Stop as at SIGTERM once there is a file of this name: a notice that this machine is to be taken "
    "away.",
)
@click.option("--name", metavar="NAME", help="What follows the @ in gpu0@NAME. Default: the host's name.")
@click.option(
    "--log-format", type=click.Choice(["plain", "json"]), help="Default: IMAGEMILL_LOG_FORMAT or plain."
)
@click.option("--insecure", is_flag=True, help="Use a Redis beyond this machine without password or TLS.")
@click.option("--allow-eviction", is_flag=True, help="Use a Redis that may drop keys when it is full.")
@click.option("--lifeline-fd", type=int, envvar=LIFELINE_FD, hidden=True)
@click.pass_context
def command(
    context: click.Context,
    *,
    models: tuple[str, ...],
    gpus: str,
    batch_size: int | None,
    mixed_hardware: bool,
    concurrency: int | None,
    stall_limit: float | None,
    until_idle: float | None,
    redis_patience: float | None,
    spot_notice: Path | None,
    name: str | None,
    log_format: Format | None,
    insecure: bool,
    allow_eviction: bool,
    lifeline_fd: int | None,
) -> None:
    """Render the jobs of a Redis queue on this host: one process per claimed GPU, started again if it dies.

    Redis is IMAGEMILL_REDIS_URL, else that of a running `imagemill run`. SIGTERM or Ctrl-C stops in good
    order (finished images are kept, the rest goes back to the queue, 120 s at most); a second one stops at
    once.

    Exit status: 0 stopped in good order, 1 a process had to be killed, 2 bad settings or a wrong Redis, 75 no
    answer of Redis (--redis-patience). With --until-idle, 0 nothing is left, 3 nothing but jobs that this
    worker refuses, 143 SIGTERM or the notice came before, 130 Ctrl-C.
    """
    if context.invoked_subcommand is not None:
        return
    from jobs.settings import load_settings
    from worker.host.imagemill_worker import run_worker
    from worker.host.leaving import Leaving

    for model in models:
        if "," in model:  # its processes read the models from a variable that separates them with commas
            raise SettingsError(f"--model {model}: a worker's model may not have a comma in its name")
    settings = load_settings(
        models=models or None,
        batch_size=batch_size,
        mixed_hardware=mixed_hardware or None,
        concurrency=concurrency,
        stall_limit=stall_limit,
        log_format=log_format,
        insecure=insecure or None,
        allow_eviction=allow_eviction or None,
    )
    if until_idle is not None and redis_patience is None:
        redis_patience = _PATIENCE
    leaving = Leaving(until_idle, redis_patience, spot_notice)
    sys.exit(run_worker(settings, gpu_choice=gpus, name=name, lifeline_fd=lifeline_fd, leaving=leaving))


@command.command()
@click.option("--request", metavar="JSON", help="An image request, as failures.jsonl holds it.")
@click.option(
    "--from",
    "file",
    type=LocalPath("a file", dir_okay=False),
    metavar="FILE",
    help="An image that imagemill wrote: render it again, by the request in it and the metadata next to it.",
)
@click.option("--model", metavar="PATH", help="The model's folder or single file, when it is one.")
@click.option(
    "--inputs",
    multiple=True,
    metavar="FOLDER",
    help="An output (also s3://BUCKET/FOLDER), or any folder that has the files which the request names, "
    "at any depth; may be given again. Default: the output that FILE lies in.",
)
@click.option(
    "--controlnet",
    "controlnets",
    multiple=True,
    metavar="PATH",
    help="A ControlNet's folder, when it is one; once for each, in their order.",
)
@click.option(
    "--image-encoder", metavar="PATH", help="The folder of an IP-Adapter's image encoder, when it is one."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Default: IMAGE_ID.png, .jpg …",
)
@click.pass_context
def render(
    context: click.Context,
    request: str | None,
    file: Path | None,
    model: str | None,
    inputs: tuple[str, ...],
    controlnets: tuple[str, ...],
    image_encoder: str | None,
    out: Path | None,
) -> None:
    """Render one image by itself, without Redis: that of a --request, as failures.jsonl has the
    command, or again that of a file.

    `imagemill-worker --batch-size N render …` renders it with as many slots as its job did.
    """
    from jobs.errors import OutputError
    from jobs.location import names_bucket
    from jobs.output.durable import write_atomically
    from jobs.settings import load_settings
    from worker.encode import SUFFIXES
    from worker.render import parse_request, reproduction_as_asked, reproduction_of
    from worker.render import render as render_one

    batch_size = _batch_size(context)
    settings = load_settings()
    if request is not None and file is None:
        reproduction = reproduction_as_asked(
            parse_request(request), settings.batch_size if batch_size is None else batch_size
        )
    elif file is not None and request is None:
        reproduction = reproduction_of(file, batch_size)
    else:
        raise click.UsageError("give --request JSON or --from FILE, one of the two")
    asked = reproduction.request
    target = Path(asked.image_id + SUFFIXES[asked.image_format]) if out is None else out
    # Checked before the model is loaded, which takes a while.
    if not target.parent.is_dir():
        raise OutputError(
            f"--out {target}: there is no folder {target.parent}: make it, or name another file"
        )
    for remark in reproduction.remarks:
        click.echo(f"note: {on_its_lines(remark)}", err=True)
    picture = render_one(
        reproduction,
        model,
        [one if names_bucket(one) else Path(one) for one in inputs],
        settings,
        lambda remark: click.echo(f"note: {on_its_lines(remark)}", err=True),
        controlnets=controlnets,
        image_encoder=image_encoder,
    )
    try:
        write_atomically(target, picture)
    except OSError as error:
        raise OutputError(
            f"--out {target}: cannot be written ({error.strerror}): name a file in a folder of yours"
        ) from None
    click.echo(str(target))


def _batch_size(context: click.Context) -> int | None:
    """`--batch-size` as it stands before `render`; an option there that means nothing to it is refused."""
    group = context.parent
    if group is None:
        return None
    for option in group.command.params:
        given = group.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name != "batch_size":
            raise click.UsageError(
                f"{option.opts[0]} has no effect on `render`: leave it out, or place it after `render`"
            )
    batch_size: int | None = group.params["batch_size"]
    return batch_size


def main() -> None:
    """The console script: an ImagemillError is one message on standard error and its exit status."""
    try:
        with odd_surroundings():
            command()  # click ends a broken pipe quietly
    except ImagemillError as error:
        click.echo(f"error: {on_its_lines(str(error))}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""`imagemill`: the command line. What its commands do is in `producer.commands`."""

from __future__ import annotations

import os
import sys

import click

from jobs.command_line import odd_surroundings
from jobs.errors import ImagemillError, Interrupted, OutputError
from jobs.location import CHECK_BUCKET, names_bucket
from jobs.wording import on_its_lines
from producer.bucket_files.object_copies import named
from producer.commands import job, manifest, output, picture, push, serve, verification
from producer.stops import stops_raise


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="imagemill")
@click.option("--insecure", is_flag=True, help="Allow a Redis beyond this machine without password or TLS.")
@click.option("--allow-eviction", is_flag=True, help="Allow a Redis that may drop keys when it is full.")
def command(*, insecure: bool, allow_eviction: bool) -> None:
    """Render YAML manifests of prompts into datasets of pictures, through Redis and Celery.

    `imagemill run FILE` does everything on this machine. With a Redis of your own (IMAGEMILL_REDIS_URL) and
    workers (`imagemill-worker`) anywhere, use `imagemill submit FILE` and watch.

    Exit status: 0 done, 1 some images failed or the job was ended early, 2 bad input, 130 Ctrl-C or SIGTERM.
    """
    if insecure:
        os.environ["IMAGEMILL_INSECURE"] = "1"  # the worker that `run` starts inherits it
    if allow_eviction:
        os.environ["IMAGEMILL_ALLOW_EVICTION"] = "1"


for one in (
    manifest.init,
    manifest.plan,
    manifest.submit,
    manifest.run,
    job.status,
    job.watch,
    serve.serve,
    job.cancel,
    job.pause,
    job.resume,
    job.retry,
    manifest.recover,
    output.doctor,
    verification.verify,
    output.export,
    push.push,
    picture.import_pictures,
    manifest.schema,
):
    command.add_command(one)


def main() -> None:
    """The console script: an ImagemillError is one message on standard error and its exit status.

    SIGTERM has the effect of Ctrl-C.
    """
    try:
        with odd_surroundings(), stops_raise(KeyboardInterrupt):
            sys.exit(command(standalone_mode=False))
    except ImagemillError as error:
        click.echo(f"error: {on_its_lines(named(str(error)))}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # The system's own errors have their messages where they arise; a store may fail anywhere.
        if not (isinstance(error.filename, str) and names_bucket(error.filename)):
            raise
        said = f"{error.filename}: {error.strerror}: {CHECK_BUCKET}, and run the same command again"
        click.echo(f"error: {on_its_lines(said)}", err=True)
        sys.exit(OutputError.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(Interrupted.exit_code)


if __name__ == "__main__":
    main()

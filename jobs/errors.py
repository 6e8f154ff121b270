"""The tree of errors that imagemill raises on purpose.

A command catches `ImagemillError`, prints its message (what is wrong, where, and the remedy) and exits with
`exit_code`. Any other exception that escapes is a defect and keeps its traceback.
"""

from __future__ import annotations


class ImagemillError(Exception):
    """A failure with a message for a person: what is wrong, where, and what to do."""

    exit_code = 2


class ManifestError(ImagemillError):
    """A manifest, or a file that it names, is wrong; the message begins `file:line:column: field`."""


class ModelError(ImagemillError):
    """A model is unknown, is missing, or has another revision than the requested one."""


class LatentsError(ImagemillError):
    """Initial latents cannot be read, or do not have the shape that the model and the size require."""


class InputError(ImagemillError):
    """A picture, a mask or an adapter that a manifest names cannot be used: the message names the file."""


class SettingsError(ImagemillError):
    """A setting in the environment or on the command line is wrong."""


class LedgerError(ImagemillError):
    """Redis is away, is full, refuses the password, or holds what this version cannot read."""


class LedgerUnavailable(LedgerError):
    """Redis is away or cannot write at present: the same call may succeed later."""


class NoRedis(LedgerError):
    """No Redis is named, and no `imagemill run` is alive."""


class LedgerFull(LedgerUnavailable):
    """Redis has no room for what is to be written."""


class BrokenShard(LedgerError):
    """A shard in Redis cannot be read; its images have to be submitted again."""


class JobUnreadable(LedgerError):
    """A job's keys in Redis are damaged, or are of another version."""


class JobError(ImagemillError):
    """A job does not exist, is in a state that forbids the action, or its output is taken."""


class Overtaken(JobError):
    """Another submit of the same manifest was faster: look up its progress and continue from there."""


class OutputError(ImagemillError):
    """An output cannot be read or written, or is outside IMAGEMILL_OUTPUT_ROOT."""


class OutputRefused(OutputError):
    """A store refuses an output, which may be sound all the same."""


class InputsAway(OutputError):
    """The bucket that keeps a request's files gave no answer: they may be asked for again."""


class HubError(ImagemillError):
    """The Hugging Face hub refuses something, or cannot be reached."""


class StandardOutputError(ImagemillError):
    """Standard output cannot be written: its disk is full, or it was closed."""


class LeaseLost(ImagemillError):
    """Another attempt holds the shard now: further work of this one does not count."""


class Interrupted(ImagemillError):
    """Ctrl-C was pressed or SIGTERM was received; everything was stopped in order."""

    exit_code = 130


class OtherHardware(ImagemillError):
    """A job began on another kind of device, whose pictures differ in their bytes."""


class RenderError(ImagemillError):
    """One image request cannot be rendered; others are not affected."""

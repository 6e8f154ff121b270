"""The one tree of errors that imagemill raises on purpose.

A command line catches `ImagemillError`, prints its message (one line of what and where, one of remedy)
and exits with `exit_code`; anything else that escapes is a defect and keeps its traceback.
"""

from __future__ import annotations


class ImagemillError(Exception):
    """A failure with a message for a person: what is wrong, where, and what to do."""

    exit_code = 2


class ManifestError(ImagemillError):
    """A manifest, or a file that it names, is wrong; the message begins `file:line:column: field`."""


class ModelError(ImagemillError):
    """A model is unknown, is not there, or holds another revision than the one asked for."""


class LatentsError(ImagemillError):
    """Initial latents cannot be read or have another shape than the model and the size ask for."""


class SettingsError(ImagemillError):
    """A setting in the environment or on the command line is wrong."""


class LedgerError(ImagemillError):
    """Redis is away, full, refuses the password, or holds what this version cannot read."""


class LedgerUnavailable(LedgerError):
    """Redis is away or cannot write for now: the same call may go through later."""


class LedgerFull(LedgerUnavailable):
    """Redis has no room for what is to be written."""


class BrokenShard(LedgerError):
    """A shard in Redis that nobody can read; its images have to be submitted again."""


class JobError(ImagemillError):
    """A job does not exist, is in a state that forbids the action, or its output is taken."""


class Overtaken(JobError):
    """Another submit of the same manifest was faster: look up how far it has come and go on from there."""


class OutputError(ImagemillError):
    """An output folder cannot be written, or lies outside IMAGEMILL_OUTPUT_ROOT."""


class LeaseLost(ImagemillError):
    """Another attempt holds the shard now: what this one still does no longer counts."""


class Interrupted(ImagemillError):
    """A person pressed Ctrl-C, or SIGTERM came: everything was stopped in good order."""

    exit_code = 130


class OtherHardware(ImagemillError):
    """A job was begun on another kind of device, whose pictures differ in their bytes."""


class RenderError(ImagemillError):
    """One image request cannot be rendered; the others are unharmed."""

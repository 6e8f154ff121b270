"""What the environment may set: every variable `IMAGEMILL_…`, its type, its default and its range."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs.errors import SettingsError
from jobs.secret_files import URL, VARIABLES, redis_url_from_files
from jobs.service_links import is_service_link

PREFIX = "IMAGEMILL_"
FORMER_NAMES = {"rows": "batch_size", "task_slots": "concurrency"}
"""What a setting was called before; its variable is still read."""


class Settings(BaseModel):
    """The settings of one process, read once at its start: what is given comes before its environment.

    `load_settings` refuses a variable that begins with IMAGEMILL_ and is not one of these, unless Kubernetes
    put it there for a service, or it names a file that has a secret.
    """

    # pydantic-settings reads variables too, and takes longer to import than all of this.
    model_config = ConfigDict(extra="forbid", frozen=True)

    redis_url: SecretStr | None = None
    """`redis://:PASSWORD@HOST:6379/0`, or `rediss://` for TLS (`?ssl_ca_certs=FILE` names your own CA).
    docs/operate.md has the other forms. IMAGEMILL_REDIS_URL_FILE names a file that holds it, and
    IMAGEMILL_REDIS_PASSWORD_FILE one that holds the password which it lacks. Without an address, the Redis of
    the newest `imagemill run`."""
    insecure: bool = False
    """`1` accepts a Redis beyond this machine without password and TLS, as `--insecure` does."""
    allow_eviction: bool = False
    """`1` accepts a Redis that may drop keys when it is full (its `maxmemory-policy`), as `--allow-eviction`
    does."""
    output_root: str | None = None
    """A worker, `submit` and `run` write nothing outside of this folder, or of `s3://BUCKET/PREFIX`. Without
    it, a worker takes the folder it was started in."""
    lease: float = Field(30.0, ge=1.0, le=3600.0)
    """Seconds until the shard of a silent worker goes to another one. Use the same value on all workers."""
    stall_limit: float = Field(1800.0, ge=2.0, le=86400.0)
    """Seconds without progress in loading a model or in a forward after which a worker process ends itself,
    to be started again."""
    batch_size: int | None = Field(None, ge=2, le=1024)
    """Slots of one forward; a guided image mostly takes two. Without it, measured once for each job."""
    mixed_hardware: bool = False
    """`1` lets a worker join jobs that began on another kind of device. Bytes may differ between devices."""
    torch_compile: bool = False
    """`1` runs denoisers through torch.compile: minutes at the start, then faster forwards. It needs a C++
    compiler (g++) and Python's headers."""
    channels_last: bool = False
    """`1` keeps what convolutions work on in the channels-last memory format, which suits GPUs."""
    concurrency: int = Field(2, ge=1, le=64)
    """Shards that one worker process holds at a time. Two keep the batch full from shard to shard."""
    min_free_disk: ByteSize = Field(ByteSize(1 << 30))
    """Rendering pauses while the output has less free space than this (`2GiB`, `500MB` or bytes)."""
    models: tuple[str, ...] = ()
    """Models that a worker takes, separated by commas; empty means any. The worker of `run` takes any."""
    device: str = "auto"
    """torch's device of a worker process: `auto`, `cpu` or `cuda`."""
    torch_threads: int | None = Field(None, ge=1)
    """torch's CPU threads of a worker process. Without it, torch chooses."""
    log_format: Literal["plain", "json"] = "plain"
    """`json` writes one JSON object a line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe messages that are logged."""
    runtime_dir: Path | None = None
    """The folder of connection and lock files. Without it, XDG_RUNTIME_DIR, or a folder of yours with mode
    0700."""
    instant_seconds: float = Field(0.0, ge=0.0)
    """Seconds that the stand-in model `instant` takes for a micro-batch."""

    @model_validator(mode="before")
    @classmethod
    def _read_the_environment(cls, given: Mapping[str, object]) -> dict[str, object]:
        present = {variable.upper(): value for variable, value in os.environ.items()}
        set_there = {
            name: present[variable] for name in cls.model_fields if (variable := variable_of(name)) in present
        }
        return set_there | dict(given)

    @field_validator("output_root", mode="before")
    @classmethod
    def _take_paths(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @field_validator("models", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("models")
    @classmethod
    def _hold_no_comma(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if any("," in model for model in models):
            raise ValueError("a model that a worker takes may not have a comma in its name")
        return models

    def environment(self) -> dict[str, str]:
        """The environment for a child process that is to have these settings.

        It is this process's own, with other IMAGEMILL_ variables: one for each setting that was set.
        """
        others = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        values = {name: getattr(self, name) for name in sorted(self.model_fields_set)}
        return others | {
            variable_of(name): _written(value) for name, value in values.items() if value is not None
        }


def variable_of(field: str) -> str:
    """The variable of a setting: `lease` -> `IMAGEMILL_LEASE`."""
    return PREFIX + field.upper()


def _written(value: object) -> str:
    """A setting's value as a variable's text."""
    match value:
        case SecretStr():
            return value.get_secret_value()
        case bool():
            return "1" if value else "0"
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def load_settings(**given: object) -> Settings:
    """The process's settings, from its environment; `given` (by field name; None: not given) comes before it.

    Raises SettingsError naming the variable, its value and what is allowed.
    """
    values = {name: value for name, value in given.items() if value is not None}
    found = _former_variables(values)
    if "redis_url" not in values:
        url = redis_url_from_files({variable.upper(): value for variable, value in os.environ.items()})
        if url is not None:
            found["redis_url"] = (URL, url)
    return _checked(found | {name: (name, value) for name, value in values.items()})


def _former_variables(given: Collection[str]) -> dict[str, tuple[str, object]]:
    """Field name -> variable and value, of the variables that have a setting's former name.

    Raises SettingsError for a variable that is no setting, and for one whose setting has both its names set.
    """
    known = {*map(variable_of, Settings.model_fields), *VARIABLES}
    present = {variable.upper() for variable in os.environ}
    found: dict[str, tuple[str, object]] = {}
    for variable in sorted(os.environ):
        if variable.upper() in known or not variable.upper().startswith(PREFIX):
            continue
        field = FORMER_NAMES.get(variable.upper().removeprefix(PREFIX).lower())
        if field is None:
            if is_service_link(variable, os.environ[variable]):
                continue
            raise SettingsError(f"{variable}: no such setting; there are {', '.join(sorted(known))}")
        if field in given:
            continue
        now = variable_of(field)
        if now in present:
            raise SettingsError(f"{variable}: is now {now}, which is set too: remove one of them")
        found[field] = (variable, os.environ[variable])
    return found


def _checked(chosen: Mapping[str, tuple[str, object]]) -> Settings:
    """The settings with the `chosen` values: field name -> what messages call it, and its value."""
    try:
        return Settings(**{field: value for field, (_, value) in chosen.items()})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        name = chosen[field][0] if field in chosen else variable_of(field)
        raise SettingsError(f"{name} = {first['input']!r}: {first['msg']}") from None

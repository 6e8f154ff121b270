"""The address of Redis, or its password alone, from a file: as Docker and Kubernetes hand out secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jobs.errors import SettingsError
from jobs.plain_file import read_plain

URL: Final = "IMAGEMILL_REDIS_URL"
URL_FILE: Final = "IMAGEMILL_REDIS_URL_FILE"
PASSWORD_FILE: Final = "IMAGEMILL_REDIS_PASSWORD_FILE"
VARIABLES: Final = (URL_FILE, PASSWORD_FILE)
"""The variables that name such a file."""
_MOST: Final = 1 << 16


def redis_url_from_files(environment: Mapping[str, str]) -> str | None:
    """The URL that the files give; None where `environment` (names in capitals) names none.

    Raises SettingsError, which tells nothing of what a file holds.
    """
    url, url_file, password_file = (environment.get(name) for name in (URL, *VARIABLES))
    if url_file is None and password_file is None:
        return None
    if url_file is not None:
        if url is not None:
            raise SettingsError(f"{URL_FILE}: {URL} is set too: remove one of them")
        url = _secret(URL_FILE, url_file)
    if password_file is None:
        return url
    if url is None:
        raise SettingsError(f"{PASSWORD_FILE}: needs {URL}, without its password: redis://USER@HOST:6379/0")
    return _with_password(url, _secret(PASSWORD_FILE, password_file))


def _secret(variable: str, file: str) -> str:
    """The text of a file, without the end of its line."""
    try:
        text = read_plain(Path(file), _MOST).decode().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(
            f"{variable} = {file}: cannot be read ({error.strerror}): name a file that this process may read"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{variable} = {file}: is not a text in UTF-8") from None
    if not text or "\n" in text:
        raise SettingsError(
            f"{variable} = {file}: must hold one line, and {'more' if text else 'nothing'} is there"
        )
    return text


def _with_password(url: str, password: str) -> str:
    scheme, separator, rest = url.partition("://")
    authority = rest.split("/")[0].split("?")[0].split(";")[0]
    user, at, _host = authority.rpartition("@")
    if ":" in user:
        raise SettingsError(f"{PASSWORD_FILE}: {URL} has a password too: remove one of them")
    place = rest.removeprefix(user + at)
    return f"{scheme}{separator}{user}:{quote(password, safe='')}@{place}"

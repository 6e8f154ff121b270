import pytest

from jobs.errors import SettingsError
from jobs.settings import load_settings


def test_models_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_MODELS", "instant, org/name ,")
    assert load_settings().models == ("instant", "org/name")


def test_an_unknown_variable_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS", "redis://localhost")
    with pytest.raises(SettingsError, match=r"IMAGEMILL_REDIS: no such setting.*IMAGEMILL_REDIS_URL"):
        load_settings()


def test_a_wrong_value_names_variable_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_LEASE", "soon")
    with pytest.raises(SettingsError, match="IMAGEMILL_LEASE = 'soon'"):
        load_settings()


def test_the_password_in_the_url_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://:secret@127.0.0.1:6379/0")
    assert "secret" not in repr(load_settings())

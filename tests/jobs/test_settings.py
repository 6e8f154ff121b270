import os
from collections.abc import Callable

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


FORMER = [("IMAGEMILL_ROWS", "IMAGEMILL_BATCH_SIZE", "batch_size"),
          ("IMAGEMILL_TASK_SLOTS", "IMAGEMILL_CONCURRENCY", "concurrency")]  # fmt: skip


@pytest.mark.parametrize(("former", "now", "field"), FORMER)
@pytest.mark.parametrize("write", [str.upper, str.lower])
def test_a_former_name_is_still_read(
    monkeypatch: pytest.MonkeyPatch, former: str, now: str, field: str, write: Callable[[str], str]
) -> None:
    monkeypatch.setenv(write(former), "7")
    settings = load_settings()
    assert getattr(settings, field) == 7
    assert settings.environment()[now] == "7"
    assert write(former) not in settings.environment()


@pytest.mark.parametrize(("former", "now", "field"), FORMER)
def test_a_setting_with_both_its_names_is_refused(
    monkeypatch: pytest.MonkeyPatch, former: str, now: str, field: str
) -> None:
    monkeypatch.setenv(former, "7")
    monkeypatch.setenv(now.lower(), "7")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value) == f"{former}: is now {now}, which is set too: remove one of them"
    assert getattr(load_settings(**{field: 3}), field) == 3, "what is given comes before both"


@pytest.mark.parametrize(("former", "now", "field"), FORMER)
def test_a_wrong_value_names_the_variable_that_was_set(
    monkeypatch: pytest.MonkeyPatch, former: str, now: str, field: str
) -> None:
    monkeypatch.setenv(former, "0")
    with pytest.raises(SettingsError, match=f"^{former} = '0': "):
        load_settings()
    monkeypatch.delenv(former)
    monkeypatch.setenv(now, "0")
    with pytest.raises(SettingsError, match=f"^{now} = '0': "):
        load_settings()
    with pytest.raises(SettingsError, match=f"^{field} = 0: "):
        load_settings(**{field: 0})


def test_what_is_given_comes_before_the_environment_and_none_is_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEMILL_CONCURRENCY", "5")
    monkeypatch.setenv("IMAGEMILL_BATCH_SIZE", "16")
    settings = load_settings(concurrency=3, batch_size=None, models=("a", "org/b"))
    assert (settings.concurrency, settings.batch_size, settings.models) == (3, 16, ("a", "org/b"))


def test_a_child_gets_the_same_settings_and_no_variable_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "imagemill_redis_url": "redis://:secret@127.0.0.1:6379/0", "IMAGEMILL_INSECURE": "yes",
        "IMAGEMILL_OUTPUT_ROOT": "/data", "IMAGEMILL_LEASE": "7.5", "IMAGEMILL_ROWS": "16",
        "IMAGEMILL_MIN_FREE_DISK": "2GiB", "IMAGEMILL_MODELS": "shapes, org/name",
        "IMAGEMILL_LOG_FORMAT": "json", "OTHER": "stays",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = load_settings(torch_threads=2)
    child = settings.environment()
    assert {name: value for name, value in child.items() if name.upper().startswith("IMAGEMILL_")} == {
        "IMAGEMILL_RUNTIME_DIR": os.environ["IMAGEMILL_RUNTIME_DIR"],
        "IMAGEMILL_REDIS_URL": "redis://:secret@127.0.0.1:6379/0", "IMAGEMILL_INSECURE": "1",
        "IMAGEMILL_OUTPUT_ROOT": "/data", "IMAGEMILL_LEASE": "7.5", "IMAGEMILL_BATCH_SIZE": "16",
        "IMAGEMILL_MIN_FREE_DISK": str(2 << 30), "IMAGEMILL_MODELS": "shapes,org/name",
        "IMAGEMILL_LOG_FORMAT": "json", "IMAGEMILL_TORCH_THREADS": "2",
    }  # fmt: skip
    assert (child["OTHER"], child["PATH"]) == ("stays", os.environ["PATH"])
    for name in ("imagemill_redis_url", "IMAGEMILL_ROWS"):
        monkeypatch.delenv(name)
    for name, value in child.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert settings.output_root == "/data"


def test_a_child_can_be_given_settings_back_at_their_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_MODELS", "shapes")
    assert load_settings().model_copy(update={"models": ()}).environment()["IMAGEMILL_MODELS"] == ""


def test_a_model_with_a_comma_in_its_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="may not have a comma"):
        load_settings(models=("a,b",))

"""Every name of a sampler means one scheduler."""

from __future__ import annotations

import pytest

from jobs.errors import ManifestError
from jobs.schedulers import SCHEDULERS, Scheduler, find_scheduler, scheduler_of_code


def test_every_name_and_alias_means_its_own_scheduler_in_any_case() -> None:
    for scheduler in SCHEDULERS:
        for name in (scheduler.name, *scheduler.aliases):
            for written in (name, name.upper(), name.lower()):
                assert find_scheduler(written) is scheduler


def test_no_two_schedulers_share_a_name() -> None:
    names = [name.casefold() for s in SCHEDULERS for name in (s.name, *s.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Euler a", "Euler a"),
        ("k_euler_a", "Euler a"),
        ("EulerAncestralDiscreteScheduler", "Euler a"),
        ("LMSDiscreteScheduler", "LMS"),
        ("DDIMScheduler", "DDIM"),
        ("DPMSolverMultistepScheduler", "DPM++ 2M"),
        ("DPM++ 2M SDE Karras", "DPM++ 2M SDE Karras"),
        ("PLMS", "PNDM"),
        ("ddim", "DDIM"),
        ("unipc", "UniPC"),
        ("k_euler_ancestral", "Euler a"),
        ("euler_ancestral", "Euler a"),
        ("k_heun", "Heun"),
        ("dpmpp_2m", "DPM++ 2M"),
        ("dpmpp_2m_k", "DPM++ 2M Karras"),
        ("uni_pc", "UniPC"),
    ],
)
def test_a1111s_kohyas_and_diffusers_names_are_taken(written: str, name: str) -> None:
    assert find_scheduler(written).name == name


def test_a_class_name_means_the_class_without_options() -> None:
    for class_name in {scheduler.class_name for scheduler in SCHEDULERS}:
        found = find_scheduler(class_name)
        assert (found.class_name, dict(found.options)) == (class_name, {})


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler.name)
def test_a_schedule_type_is_named_at_the_end_of_the_name(scheduler: Scheduler) -> None:
    """A1111's text has the sampler and its schedule type apart; the text is cut at this."""
    assert bool(scheduler.schedule_type) == bool(scheduler.options.get("use_karras_sigmas"))
    assert scheduler.name.endswith(scheduler.schedule_type)


def test_an_unknown_name_is_reported_with_all_there_are() -> None:
    with pytest.raises(ManifestError) as caught:
        find_scheduler("Eular a")
    assert "'Eular a'" in str(caught.value)
    assert all(scheduler.name in str(caught.value) for scheduler in SCHEDULERS)


def test_the_nearest_name_is_said_and_not_taken() -> None:
    with pytest.raises(ManifestError, match=r"no scheduler is called 'DPM\+\+ SDE Karras' \(the nearest is "):
        find_scheduler("DPM++ SDE Karras")


def test_diffusiondbs_numbers_stand_for_schedulers_that_there_are() -> None:
    for code in range(1, 9):
        assert find_scheduler(scheduler_of_code(code)).name == scheduler_of_code(code)
    for code in (0, 9, -1):
        with pytest.raises(
            ManifestError, match=r"is no sampler's number in DiffusionDB: use one of 1 \(DDIM\)"
        ):
            scheduler_of_code(code)

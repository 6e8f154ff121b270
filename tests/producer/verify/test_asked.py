"""The request of a record, and what is said of one whose settings give another image_id."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.output.output import Output
from producer.verify.asked import OtherId, request_asked
from producer.verify.not_comparable import NotComparable
from tests.rendered_output import rendered

__all__ = ["rendered"]


def test_a_request_has_the_image_id_of_its_record(rendered: Callable[..., Output]) -> None:
    for record in rendered(4).records(0):
        assert request_asked(record).image_id == record["image_id"]


def test_a_record_of_an_earlier_version_lacks_what_was_added_later(rendered: Callable[..., Output]) -> None:
    record = next(rendered(4).records(0))
    assert not {"arguments", "loras", "image", "syntax"} & record.keys()
    assert request_asked(record).loras == "[]"


def test_a_changed_setting_is_named_by_the_request_in_the_picture(rendered: Callable[..., Output]) -> None:
    output = rendered(4)
    record = next(output.records(0))
    [(_name, picture)] = output.pictures(0, [record["file_name"]])
    with pytest.raises(OtherId) as raised:
        request_asked(record | {"num_inference_steps": 7})
    told = str(raised.value.told_by(picture))
    assert "num_inference_steps is 7 there and 50 in its picture" in told
    assert "no request that says in which setting" in str(raised.value.told_by(None))


def test_a_value_that_no_setting_has_is_named(rendered: Callable[..., Output]) -> None:
    record = next(rendered(4).records(0))
    with pytest.raises(NotComparable, match="width = 63, which must be"):
        request_asked(record | {"width": 63})
    with pytest.raises(NotComparable, match="make no request"):
        request_asked({name: value for name, value in record.items() if name != "seed"})

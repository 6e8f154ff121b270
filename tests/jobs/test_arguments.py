from __future__ import annotations

import pytest

from jobs.arguments import NO_ARGUMENTS, arguments_of, arguments_text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, NO_ARGUMENTS),
        ("{}", NO_ARGUMENTS),
        ({"b": 1, "a": True}, '{"a":true,"b":1}'),
        ('{"b": 1, "a": true}', '{"a":true,"b":1}'),
        ({"true_cfg_scale": 4.0}, '{"true_cfg_scale":4}'),
        (
            {"sigmas": [1.0, 0.5], "prompt_2": "été", "mu": None},
            '{"mu":null,"prompt_2":"été","sigmas":[1,0.5]}',
        ),
        ({"original_size": (512, 768)}, '{"original_size":[512,768]}'),
        ({"eta": -0.0}, '{"eta":0}'),
    ],
)
def test_equal_arguments_are_one_text(given: object, text: str) -> None:
    assert arguments_text(given) == text
    assert arguments_text(text) == text
    assert arguments_text(arguments_of(text)) == text


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("{", "must be a mapping, as YAML or as JSON"),
        ("[]", "must be a mapping of"),
        ([], "must be a mapping of"),
        (None, "must be a mapping of"),
        ({1: 2}, "1: is no name of an argument"),
        ({"a b": 2}, "a b: is no name of an argument"),
        ({"eta": float("nan")}, "eta: must be finite"),
        ({"eta": 2**63}, "eta: must fit in 64 bits"),
        ({"sigmas": [[1.0]]}, "sigmas: must not hold lists in a list"),
        ({"kwargs": {"scale": 1}}, "kwargs: must be a number, true or false, text, null, or a list of these"),
        ({"prompt_2": "a\0b"}, "prompt_2: holds the character NUL"),
        ({"prompt_2": "\ud800"}, "prompt_2: holds half of a surrogate pair"),
    ],
)
def test_what_no_argument_can_be_is_told_with_its_name(given: object, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{what}"):
        arguments_text(given)

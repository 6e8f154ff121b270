"""What a template gives of an image is what the request gives of itself, to the last bit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.entry import Entry, derived_seed
from jobs.request import ImageRequest, quoted
from jobs.request_template import RequestTemplate

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_REQUEST = st.builds(
    ImageRequest,
    prompt=_TEXT,
    negative_prompt=_TEXT,
    height=st.integers(8, 8192),
    width=st.integers(8, 8192),
    num_inference_steps=st.integers(1, 1000),
    guidance_scale=st.floats(1, 100),
    scheduler=st.sampled_from(["LMS", "DPM++ 2M Karras"]),
    seed=st.integers(0, 2**63 - 1),
    model=_TEXT,
    revision=_TEXT,
    precision=st.sampled_from(["auto", "fp32"]),
    image_format=st.sampled_from(["png", "jpeg", "webp"]),
    image_quality=st.integers(1, 100),
    init_latents=st.none() | st.just("0" * 64),
)


@settings(max_examples=500, deadline=None)
@given(_REQUEST, _TEXT, st.integers(0, 10**6), _TEXT, st.integers(0, 2**63 - 1))
def test_ids_seeds_and_entries_are_those_of_the_request(
    request: ImageRequest, name: str, ordinal: int, other_prompt: str, other_seed: int
) -> None:
    # The mould's own prompt and seed do not count.
    mould = RequestTemplate(name, replace(request, prompt=other_prompt, seed=other_seed))
    assert mould.image_id(quoted(request.prompt), request.seed) == request.image_id
    assert mould.derived_seed(quoted(request.prompt), ordinal) == derived_seed(name, request, ordinal)
    made = mould.entry(quoted(request.prompt), request.seed, "fox", {"split": "test"}, ordinal)
    expected = Entry.of(request=request, id="fox", columns={"split": "test"}, seed_ordinal=ordinal)
    assert made == expected
    assert (made.quoted, made.seed, made.settings, made.size) == (
        expected.quoted,
        expected.seed,
        expected.settings,
        expected.size,
    )


@settings(max_examples=50, deadline=None)
@given(_REQUEST)
def test_an_entry_out_of_a_mould_is_changed_like_any_other(request: ImageRequest) -> None:
    made = RequestTemplate("cats", request).entry(quoted(request.prompt), request.seed, "fox", {}, 3)
    other = replace(request, prompt="another")
    changed = Entry.of(other, id=made.id, columns=made.columns, seed_ordinal=made.seed_ordinal)
    assert changed == Entry.of(request=other, id="fox", columns={}, seed_ordinal=3)
    assert changed.quoted == '"another"'
    assert made.request == request

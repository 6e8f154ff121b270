"""A1111's <lora:name:0.8> in prompts."""

from __future__ import annotations

import pytest

from producer.manifest.lora_tags import LoraTag, TagError, untagged


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a fox", "a fox"),
        ("a fox <lora:ink:0.8>", "a fox"),
        ("<lora:ink:0.8> a fox", "a fox"),
        ("a fox <lora:ink:0.8>, sharp", "a fox, sharp"),
        ("a fox <lora:ink:0.8> in snow", "a fox in snow"),
        ("a fox<lora:ink:0.8>in snow", "a foxin snow"),
        ("a fox, <lora:ink:0.8>\nin snow", "a fox,\nin snow"),
        ("<lora:ink:0.8>", ""),
        ("<lora:ink:1> <lora:grain:1> a fox", "a fox"),
        ("(a fox <lora:ink:1>:1.2)", "(a fox :1.2)"),
        ("a <b> fox", "a <b> fox"),
        ("a <lyco:ink:1> fox", "a <lyco:ink:1> fox"),
    ],
)
def test_a_tag_is_taken_out_with_the_blank_that_it_leaves(prompt: str, left: str) -> None:
    assert untagged(prompt).prompt == left


@pytest.mark.parametrize(
    ("tag", "name", "scale"),
    [
        ("<lora:ink>", "ink", 1.0),
        ("<lora:ink:0.8>", "ink", 0.8),
        ("<LORA: styles/ink v2 : -.5 >", "styles/ink v2", -0.5),
        ("<lora:ink:0>", "ink", 0.0),
        ("<lora:ink:0.8:0.8>", "ink", 0.8),
        ("<lora:ink:te=0.8:unet=0.8>", "ink", 0.8),
    ],
)
def test_a_tag_says_a_name_and_one_scale(tag: str, name: str, scale: float) -> None:
    assert untagged(f"a {tag} fox").tags == (LoraTag(name, scale),)


def test_tags_keep_their_order() -> None:
    assert [tag.name for tag in untagged("<lora:b:1> a <lora:a:1> fox <lora:c:1>").tags] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("<lora:ink:0.8:0.6>", "weighs text encoders and UNet differently"),
        ("<lora:ink:unet=0.6>", "weighs the UNet alone"),
        ("<lora:ink:much>", "much is no weight that is read: write <lora:ink:0.8>"),
        ("<lora:ink:1:1:8>", "8 is no weight that is read"),
        ("<lora:ink:99>", "its weight must lie between -10 and 10"),
        ("<lora::1>", "names no file: write <lora:NAME:0.8>"),
    ],
)
def test_what_is_not_rendered_is_refused_with_what_is(tag: str, says: str) -> None:
    with pytest.raises(TagError) as caught:
        untagged(f"a {tag} fox")
    assert says in str(caught.value)
    assert tag in str(caught.value)

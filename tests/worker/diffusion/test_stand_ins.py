"""What stands in for a module looks like it, remembers texts, and notes what is not finite."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPast

from worker.diffusion.sharing_errors import Refused
from worker.diffusion.stand_ins import Denoiser, RememberedTexts, WatchedAutoencoder


class Encoder(torch.nn.Module):
    """Counts its calls; its output follows from the ids."""

    config = "its own"

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[int, ...]] = Counter()

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> BaseModelOutput:
        self.seen[tuple(ids.flatten().tolist())] += 1
        state = ids.float()[..., None] * (1 if attention_mask is None else attention_mask[..., None])
        return BaseModelOutput(last_hidden_state=state, hidden_states=(state, state * 2))


def ids(*numbers: int) -> torch.Tensor:
    return torch.tensor([numbers])


def test_a_text_is_encoded_once_and_every_image_gets_a_copy() -> None:
    encoder, texts = Encoder(), RememberedTexts()
    stand_in = texts.encoder("text_encoder", encoder)
    first = stand_in(ids(1, 2))
    first.last_hidden_state.zero_()
    again = stand_in(ids(1, 2))
    assert again.last_hidden_state.flatten().tolist() == [1, 2]
    assert again.hidden_states[1].flatten().tolist() == [2, 4]
    assert encoder.seen == {(1, 2): 1}
    again.last_hidden_state.zero_()
    assert stand_in(ids(1, 2))[0].flatten().tolist() == [1, 2]


def test_other_ids_another_mask_or_another_encoder_are_other_texts() -> None:
    encoder, texts = Encoder(), RememberedTexts()
    stand_in, second = texts.encoder("text_encoder", encoder), texts.encoder("text_encoder_2", encoder)
    stand_in(ids(1, 2))
    stand_in(ids(1, 3))
    stand_in(ids(1, 2), attention_mask=torch.tensor([[1, 0]]))
    stand_in(ids(1, 2), torch.tensor([[1, 1]]))
    second(ids(1, 2))
    assert encoder.seen == {(1, 2): 4, (1, 3): 1}


def test_the_longest_unused_is_forgotten_first_and_all_when_weights_change() -> None:
    encoder = Encoder()
    two_texts = 2 * 2 * 4 * 2  # each two tensors of two float32; one of them is there twice
    texts = RememberedTexts(most=two_texts)
    stand_in = texts.encoder("text_encoder", encoder)
    for text in (1, 2, 1, 3, 1, 2):
        stand_in(ids(text, text))
    assert encoder.seen == {(1, 1): 1, (2, 2): 2, (3, 3): 1}
    texts.forget()
    stand_in(ids(1, 1))
    assert encoder.seen[1, 1] == 2


class CachingEncoder(Encoder):
    """Gives its keys and values too, as language models do."""

    def forward(self, ids: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPast:
        state = super().forward(ids).last_hidden_state
        cache = DynamicCache()
        for layer in range(2):
            cache.update(state[:, None] + layer, state[:, None], layer)
        return BaseModelOutputWithPast(last_hidden_state=state, past_key_values=cache)


def test_no_two_images_share_a_cache_of_keys_and_values() -> None:
    encoder = CachingEncoder()
    stand_in = RememberedTexts().encoder("text_encoder", encoder)
    outputs = [stand_in(ids(1, 2)) for _image in range(3)]
    for output in outputs:
        assert output.past_key_values.get_seq_length() == 2, "nobody's text was added to it"
        output.past_key_values.update(torch.ones(1, 1, 5, 1), torch.ones(1, 1, 5, 1), 0)
        output.past_key_values.layers[1].keys.zero_()
    assert stand_in(ids(1, 2)).past_key_values.layers[1].keys.flatten().tolist() == [2, 3]
    assert encoder.seen == {(1, 2): 1}


def test_a_cache_of_keys_and_values_counts_as_memory() -> None:
    encoder = CachingEncoder()
    one_text = 2 * 4 * (1 + 2 * 2)  # of two tokens, float32: the state, and keys and values of two layers
    stand_in = RememberedTexts(most=2 * one_text - 1).encoder("text_encoder", encoder)
    for text in (1, 2, 1):
        stand_in(ids(text, text))
    assert encoder.seen == {(1, 1): 2, (2, 2): 1}
    small = RememberedTexts(most=one_text - 1).encoder("text_encoder", encoder)
    for _ in range(2):
        small(ids(3, 3))
    assert encoder.seen[3, 3] == 2


def test_tensors_that_share_their_memory_count_once() -> None:
    class Layers(Encoder):
        def forward(self, ids: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
            state = super().forward(ids).last_hidden_state
            return BaseModelOutput(last_hidden_state=state, hidden_states=(state, state[:1]))

    encoder = Layers()
    stand_in = RememberedTexts(most=2 * 4).encoder("text_encoder", encoder)
    for _ in range(2):
        stand_in(ids(3, 3))
    assert encoder.seen == {(3, 3): 1}


def test_a_call_with_keys_and_values_of_an_earlier_text_is_made_each_time() -> None:
    encoder = CachingEncoder()
    stand_in = RememberedTexts().encoder("text_encoder", encoder)
    before = [DynamicCache(), DynamicCache()]
    for value, cache in enumerate(before):
        cache.update(torch.full((1, 1, 1, 1), value), torch.ones(1, 1, 1, 1), 0)
        stand_in(ids(1, 2), past_key_values=cache)
    assert encoder.seen == {(1, 2): 2}


@pytest.mark.parametrize("force_upcast", [True, False])
def test_an_autoencoder_in_float16_decodes_in_float32_whatever_its_configuration_says(
    force_upcast: bool,
) -> None:
    """Its activations leave float16's range here, as those of SDXL's do."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8,), latent_channels=4, norm_num_groups=2, force_upcast=force_upcast
    )
    vae.decoder.conv_in.weight.data *= 1e5
    vae.to(torch.float16)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1)).half()
    before = {name: one.clone() for name, one in vae.state_dict().items()}
    with torch.no_grad():
        assert not vae.decode(latents).sample.isfinite().all()
        noted: list[torch.Tensor] = []
        picture = WatchedAutoencoder("vae", vae, noted).decode(latents).sample
        assert all(noted)
        expected = copy.deepcopy(vae).float().decode(latents.float()).sample
    assert torch.equal(picture, expected)
    assert all(torch.equal(one, before[name]) for name, one in vae.state_dict().items())
    assert vae.dtype == torch.float16


def test_an_autoencoder_encodes_in_float32_and_gives_the_format_that_it_was_given() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=2)
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = vae.encode(picture).latent_dist.parameters
        for module in (vae, copy.deepcopy(vae).half()):
            stand_in = WatchedAutoencoder("vae", module, [])
            found = stand_in.encode(picture.half()).latent_dist
            assert found.parameters.dtype == found.sample(torch.Generator()).dtype == torch.float16
            assert torch.allclose(found.parameters.float(), whole, atol=2e-3)
        assert torch.equal(WatchedAutoencoder("vae", vae, []).encode(picture).latent_dist.parameters, whole)


def test_where_a_pipeline_names_no_generator_its_picture_s_own_noise_is_drawn() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=2)
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def drawn(seed: int, *given: torch.Generator) -> torch.Tensor:
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            encoded = WatchedAutoencoder("vae", vae, [], noise).encode(picture)
        sample: torch.Tensor = encoded.latent_dist.sample(*given)
        return sample

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    seven = [torch.Generator().manual_seed(7) for _ in range(2)]
    assert torch.equal(drawn(1, seven[0]), drawn(2, seven[1]))


def test_what_is_larger_than_all_that_is_kept_is_encoded_each_time() -> None:
    encoder = Encoder()
    stand_in = RememberedTexts(most=8).encoder("text_encoder", encoder)
    for _ in range(2):
        assert stand_in(ids(4, 5))[0].flatten().tolist() == [4, 5]
    assert encoder.seen == {(4, 5): 2}


def test_it_looks_like_the_module_and_lets_none_of_it_be_changed() -> None:
    encoder = Encoder()
    stand_in = RememberedTexts().encoder("text_encoder", encoder)
    assert isinstance(stand_in, Encoder)
    assert stand_in.config == "its own"
    with pytest.raises(Refused, match=r"sets text_encoder\.config"):
        stand_in.config = "another"


def test_a_denoiser_s_arguments_are_bound_to_their_names() -> None:
    calls: list[tuple[str, Any, dict[str, Any]]] = []
    encoder = Encoder()
    denoiser = Denoiser("unet", encoder, lambda *call: calls.append(call))
    denoiser(ids(1), attention_mask=ids(0))
    assert calls == [("unet", encoder, {"ids": ids(1), "attention_mask": ids(0)})]


def test_an_argument_at_its_default_is_as_one_that_is_left_out() -> None:
    calls: list[dict[str, Any]] = []
    denoiser = Denoiser("unet", Encoder(), lambda _name, _module, call: calls.append(call))
    denoiser(ids(1), None)
    denoiser(ids(1), attention_mask=None)
    denoiser(ids(1))
    assert calls == [{"ids": ids(1)}] * 3


@pytest.mark.parametrize(
    ("latents", "picture", "finite"),
    [(1.0, 1.0, True), (float("nan"), 1.0, False), (1.0, float("inf"), False)],
)
@pytest.mark.parametrize("as_tuple", [True, False])
def test_what_is_not_finite_before_or_after_decoding_is_noted(
    latents: float, picture: float, finite: bool, as_tuple: bool
) -> None:
    class Decoder:
        dtype = torch.float32

        def decode(self, _latents: torch.Tensor, return_dict: bool = True) -> Any:
            decoded = torch.full((1, 3, 4, 4), picture)
            return type("Output", (), {"sample": decoded})() if return_dict else (decoded,)

    noted: list[torch.Tensor] = []
    watched = WatchedAutoencoder("vae", Decoder(), noted)
    watched.decode(torch.full((1, 4, 2, 2), latents), return_dict=not as_tuple)
    assert all(noted) is finite

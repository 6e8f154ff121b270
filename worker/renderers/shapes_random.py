"""The built-in model `shapes-random`: a small Stable Diffusion with random weights, built in code.

It has the parts, the shapes and the cost of the small trained model, and paints noise: for demonstrations,
tests and measurements without a download.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_SEED = 1
_WINDOW = 77
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_WORDS = """
a an and the of on in at with over under beside above below left right top bottom center middle corner
one two three small large red green blue yellow orange purple pink brown black white gray cyan
circle square triangle star ring cross diamond heart background picture photo
beautiful sunset mountains lake reflection forest sea sky cat dog fox house blurry
"""


def build() -> StableDiffusionPipeline:
    """The pipeline, on the CPU in float32: 64x64 pictures of 16x16x4 latents, the same weights every time.

    Leaves torch's random state as it was. There is no safety checker: the pictures are noise.
    """
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would seed the GPUs' generators too.
        torch.default_generator.manual_seed(_SEED)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=96,
                intermediate_size=384,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=_WINDOW,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(32, 64, 96),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=4,
            norm_num_groups=16,
            cross_attention_dim=96,
        )
        vae = AutoencoderKL(
            sample_size=64,
            latent_channels=4,
            block_out_channels=(16, 32, 64),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=8,
            mid_block_add_attention=False,
            scaling_factor=0.18215,
        )
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
            # Written out: a saved configuration names it, and the saved model must paint the same.
            timestep_spacing="leading",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with merges that spell out `_WORDS`; other words cost about a token a letter."""
    # GPT-2's alphabet: a printable byte stands for itself, the others for the code points from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges: dict[tuple[str, str], None] = {}
    for word in _WORDS.split():
        letters = [*word[:-1], word[-1] + "</w>"]
        head = letters[0]
        for letter in letters[1:]:
            merges[(head, letter)] = None
            head += letter
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocab = {token: number for number, token in enumerate([*dict.fromkeys(tokens), _BOS, _EOS])}
    # vocab= and merges=: the older vocab_file= and merges_file= are swallowed and leave a vocabulary of 2.
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=_WINDOW)

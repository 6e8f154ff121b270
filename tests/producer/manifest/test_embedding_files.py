"""Textual inversions of manifests and rows: found, checked against the model, hashed, or refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from jobs.adapters import TextualInversion, textual_inversions_of
from jobs.errors import ManifestError
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.prompt_files.reading import Reading
from producer.requests.prepared import Prepared, prepare
from tests.checkpoint_files import configuration
from tests.embedding_files import embedding, vectors
from tests.lora_headers import stable_diffusion

HEAD = "name: a\nmodel: ./sd\nsettings: {height: 64, width: 64}\n"
CAT = "{file: toys/cat.safetensors, token: <cat-toy>}"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    stable_diffusion(tmp_path / "sd")
    (tmp_path / "sd/text_encoder").mkdir(exist_ok=True)
    (tmp_path / "sd/text_encoder/config.json").write_text('{"hidden_size": 16}')
    (tmp_path / "sd/tokenizer").mkdir(exist_ok=True)
    (tmp_path / "sd/tokenizer/vocab.json").write_text('{"cat</w>": 0, "c": 1}')
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys/cat.safetensors").write_bytes(embedding(emb_params=vectors(2, 16)))
    (tmp_path / "toys/easynegative.safetensors").write_bytes(embedding(a=vectors(1, 16, 2)))
    (tmp_path / "toys/wide.safetensors").write_bytes(embedding(a=vectors(1, 768)))


def prepared(text: str, head: str = HEAD) -> Prepared:
    Path("m.yaml").write_text(head + text)
    return prepare(Path("m.yaml"), Settings())


def requests(text: str, head: str = HEAD) -> list[ImageRequest]:
    return [entry.request for _image_id, entry in prepared(text, head).entries()]


def tokens(text: str, head: str = HEAD) -> list[list[str]]:
    return [
        [one.token for one in textual_inversions_of(request.textual_inversions)]
        for request in requests(text, head)
    ]


def refusal(text: str, head: str = HEAD) -> str:
    with pytest.raises(ManifestError) as caught:
        list(prepared(text, head).entries())
    return str(caught.value)


def test_a_request_holds_each_files_name_token_and_hash() -> None:
    [request] = requests(f"prompts: [{{prompt: a <cat-toy>, textual_inversions: [{CAT}]}}]")
    sha256 = hashlib.sha256(Path("toys/cat.safetensors").read_bytes()).hexdigest()
    assert textual_inversions_of(request.textual_inversions) == (
        TextualInversion("cat", "<cat-toy>", sha256),
    )


def test_a_file_without_a_token_is_called_by_its_name() -> None:
    line = "{prompt: a, negative_prompt: EasyNegative, textual_inversions: [toys/easynegative.safetensors]}"
    assert tokens(f"prompts: [{line}]") == [["easynegative"]]


def test_a_list_may_stand_in_settings_a_prompt_the_sweep_and_a_row() -> None:
    usual = f"name: a\nmodel: ./sd\nsettings: {{height: 64, width: 64, textual_inversions: [{CAT}]}}\n"
    assert tokens("prompts: [a <cat-toy>, {prompt: b <cat-toy>, textual_inversions: []}]", usual) == [
        ["<cat-toy>"],
        [],
    ]
    swept = f"prompts: [a <cat-toy>]\nsweep: {{textual_inversions: [[], [{CAT}]]}}"
    assert tokens(swept) == [[], ["<cat-toy>"]]
    row = {"prompt": "a <x>", "textual_inversions": [{"file": "toys/cat.safetensors", "token": "<x>"}]}
    Path("p.jsonl").write_text("\n".join(map(json.dumps, [row, {"prompt": "b"}])))
    assert tokens("prompts_from: p.jsonl") == [["<x>"], []]
    Path("p.csv").write_text(
        "prompt,textual_inversions\ncat wide,\neasynegative,toys/easynegative.safetensors\n"
    )
    assert tokens("prompts_from: p.csv") == [[], ["easynegative"]]


def test_a_request_has_only_those_that_its_texts_call() -> None:
    both = f"[{CAT}, toys/easynegative.safetensors]"
    usual = f"name: a\nmodel: ./sd\nsettings: {{height: 64, width: 64, textual_inversions: {both}}}\n"
    lines = "[a cat, a <Cat-Toy>, {prompt: a, negative_prompt: easynegative}, a <cat-toy> easynegative]"
    assert tokens(f"prompts: {lines}", usual) == [
        [],
        ["<cat-toy>"],
        ["easynegative"],
        ["<cat-toy>", "easynegative"],
    ]
    [plain] = requests("prompts: [{prompt: a cat, seed: 1}]")
    [with_list] = requests("prompts: [{prompt: a cat, seed: 1}]", usual)
    assert with_list.image_id == plain.image_id


def test_further_texts_of_the_pipelines_call_are_texts_too() -> None:
    both = f"[{CAT}, toys/easynegative.safetensors]"
    head = f"name: a\nmodel: ./xl\nsettings: {{height: 64, width: 64, textual_inversions: {both}}}\n"
    for name in ("cat", "easynegative"):
        Path(f"toys/{name}.safetensors").write_bytes(embedding(clip_l=vectors(2, 16), clip_g=vectors(2, 16)))
    configuration(Path("xl"), "StableDiffusionXLPipeline")
    lines = "[{prompt: a, arguments: {prompt_2: a <cat-toy>}}, {prompt: a, arguments.prompt_2: <CAT-toy>}, b]"
    assert tokens(f"prompts: {lines}", head) == [["<cat-toy>"], ["<cat-toy>"], []]
    swept = "prompts: [a]\nsweep: {arguments.negative_prompt_2: [b, easynegative]}"
    assert tokens(swept, head) == [[], ["easynegative"]]
    Path("p.csv").write_text("prompt,arguments.negative_prompt_2\na,easynegative\nb,\n")
    assert tokens("prompts_from: p.csv", head) == [["easynegative"], []]


def test_a_token_that_no_text_holds_is_told() -> None:
    both = f"[{CAT}, toys/easynegative.safetensors]"
    usual = f"name: a\nmodel: ./sd\nsettings: {{height: 64, width: 64, textual_inversions: {both}}}\n"
    reading = Reading()
    list(prepared("prompts: [a cat, a <cat-toy>, b]", usual).entries(reading=reading))
    assert list(reading.told()) == [
        "textual_inversions: no text of a line that lists it holds easynegative: write it there, or remove it"
    ]


def test_image_ids_follow_from_contents_and_tokens_and_not_from_paths() -> None:
    Path("other.safetensors").write_bytes(Path("toys/cat.safetensors").read_bytes())

    def image_id(file: str) -> str:
        line = f"{{prompt: a <x>, seed: 1, textual_inversions: [{{file: {file}, token: <x>}}]}}"
        [request] = requests(f"prompts: [{line}]")
        return request.image_id

    assert image_id("toys/cat.safetensors") == image_id("other.safetensors")
    assert image_id("toys/cat.safetensors") != image_id("toys/easynegative.safetensors")


def test_the_files_that_requests_name_are_kept_by_their_hashes() -> None:
    reading, files = Reading(), prepared(f"prompts: [{{prompt: a <cat-toy>, textual_inversions: [{CAT}]}}]")
    [(_image_id, entry)] = files.entries(reading=reading)
    [one] = textual_inversions_of(entry.request.textual_inversions)
    assert reading.adapters[one.sha256] == str(Path("toys/cat.safetensors").absolute())


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            "[{file: toys/no.safetensors, token: <x>}]",
            "toys/no.safetensors: there is no such file: correct it",
        ),
        ("[{file: toys/cat.pt, token: <x>}]", "toys/cat.pt: is a pickle, which runs code"),
        (
            "[{file: toys/wide.safetensors, token: <x>}]",
            "the model's text encoder is 16 wide: name an embedding",
        ),
        ("[toys/cat.safetensors]", "its token cat is a word that the model knows: give it a token"),
        ("[{file: toys/cat.safetensors, token: a cat}]", "number 1 has a token a cat that holds ' '"),
        ("[{file: toys/cat.safetensors, tokens: x}]", "number 1 has a key tokens: use file and token"),
        (f"[{CAT}, {CAT}]", "two embeddings have the token <cat-toy>"),
        ("[{token: <x>}]", "number 1 names no `file`: add it"),
        ("7", "must be a list of textual inversions, each a file or {file, token}"),
    ],
)
def test_what_cannot_be_used_is_refused_at_its_place(listed: str, message: str) -> None:
    told = refusal(f"prompts:\n- prompt: a\n  textual_inversions: {listed}\n")
    assert told.startswith("m.yaml:6:") and "prompts[0].textual_inversions" in told, told
    assert message in told, told


def test_a_row_that_names_a_file_that_is_not_there_is_bad() -> None:
    Path("p.csv").write_text("prompt,textual_inversions\nx <y>,no.safetensors\na,\n")
    assert "p.csv:2" in refusal("prompts_from: p.csv")
    assert tokens("on_bad_row: skip\nprompts_from: p.csv") == [[]]

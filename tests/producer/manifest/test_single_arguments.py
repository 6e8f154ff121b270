"""One argument of the pipeline's call, by its dotted name, joins the others or is refused at its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.errors import ManifestError
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.manifest.manifest import Manifest
from producer.manifest.single_arguments import argument_named, folded
from producer.requests.prepared import Prepared, prepare

HEAD = "name: f\nmodel: ./Flux\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Flux" / "vae").mkdir(parents=True)
    index = {"_class_name": "FluxPipeline", "vae": ["diffusers", "X"]}
    (tmp_path / "Flux" / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "Flux" / "vae" / "config.json").write_text('{"block_out_channels": [1, 2, 3, 4]}')


def prepared(text: str) -> Prepared:
    Path("m.yaml").write_text(HEAD + text)
    return prepare(Path("m.yaml"), Settings())


def requests(text: str) -> list[ImageRequest]:
    return [entry.request for _image_id, entry in prepared(text).entries()]


def arguments(text: str) -> list[tuple[str, str]]:
    return [(request.prompt, request.arguments) for request in requests(text)]


def refusal(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        requests(text)
    return str(caught.value).splitlines()


def test_a_dotted_name_means_an_argument_and_nothing_else_does() -> None:
    assert argument_named("arguments.eta") == "eta"
    assert [argument_named(key) for key in ("arguments", "arguments.", "arguments.a.b", "eta")] == [None] * 4
    assert folded({"height": 8}, '{"eta":1}') == {"height": 8}
    assert folded({"arguments.eta": 2, "height": 8}, '{"a":0,"eta":1}') == {
        "arguments": '{"a":0,"eta":2}',
        "height": 8,
    }


def test_a_swept_argument_joins_those_of_settings_and_of_prompts() -> None:
    found = arguments(
        "settings: {seed: 1, arguments: {max_sequence_length: 256, true_cfg_scale: 9}}\n"
        "prompts: [a, {prompt: b, arguments: {prompt_2: x}}, {prompt: c, arguments.prompt_2: y}]\n"
        "sweep: {arguments.true_cfg_scale: [1, 4.0]}\n"
    )
    assert found == [
        ("a", '{"max_sequence_length":256,"true_cfg_scale":1}'),
        ("a", '{"max_sequence_length":256,"true_cfg_scale":4}'),
        ("b", '{"prompt_2":"x","true_cfg_scale":1}'),
        ("b", '{"prompt_2":"x","true_cfg_scale":4}'),
        ("c", '{"max_sequence_length":256,"prompt_2":"y","true_cfg_scale":1}'),
        ("c", '{"max_sequence_length":256,"prompt_2":"y","true_cfg_scale":4}'),
    ]


def test_a_swept_argument_gives_the_ids_of_the_same_mapping() -> None:
    single = requests("settings: {seed: 1}\nprompts: [a]\nsweep: {arguments.true_cfg_scale: [1, 4.0]}\n")
    whole = requests(
        "settings: {seed: 1}\nprompts: [a]\nsweep: {arguments: [{true_cfg_scale: 1}, {true_cfg_scale: 4}]}\n"
    )
    assert [request.image_id for request in single] == [request.image_id for request in whole]


def test_combinations_of_swept_arguments_do_not_depend_on_the_order_of_keys() -> None:
    rest = "settings: {seed: 1}\nprompts: [a]\n"
    found = arguments(rest + "sweep: {arguments.true_cfg_scale: [1, 2], arguments.prompt_2: [x, y]}\n")
    assert found == arguments(
        rest + "sweep: {arguments.prompt_2: [x, y], arguments.true_cfg_scale: [1, 2]}\n"
    )
    assert [text for _prompt, text in found] == [
        '{"prompt_2":"x","true_cfg_scale":1}',
        '{"prompt_2":"x","true_cfg_scale":2}',
        '{"prompt_2":"y","true_cfg_scale":1}',
        '{"prompt_2":"y","true_cfg_scale":2}',
    ]


def test_null_and_lists_are_swept_too() -> None:
    found = arguments(
        "settings: {seed: 1, num_inference_steps: 2}\nprompts: [a]\n"
        "sweep: {arguments.sigmas: [null, [1.0, 0.5], [1, 0.2]]}\n"
    )
    assert [text for _prompt, text in found] == [
        '{"sigmas":null}',
        '{"sigmas":[1,0.5]}',
        '{"sigmas":[1,0.2]}',
    ]


def test_columns_of_a_prompt_file_give_single_arguments_under_their_own_name_or_another() -> None:
    Path("own.csv").write_text("prompt,arguments.true_cfg_scale\na,2\nb,\n")
    Path("other.csv").write_text('prompt,e,p2\nc,2.0,hello\nd,,"""12"""\n')
    Path("rows.jsonl").write_text(
        '{"prompt": "e", "arguments": {"true_cfg_scale": 1}, "arguments.prompt_2": "q"}\n'
    )
    assert arguments(
        "settings: {arguments: {max_sequence_length: 256}}\n"
        "prompts_from:\n- own.csv\n"
        "- {file: other.csv, fields: {arguments.true_cfg_scale: e, arguments.prompt_2: p2}}\n"
        "- rows.jsonl\n"
    ) == [
        ("a", '{"max_sequence_length":256,"true_cfg_scale":2}'),
        ("b", '{"max_sequence_length":256}'),
        ("c", '{"max_sequence_length":256,"prompt_2":"hello","true_cfg_scale":2}'),
        ("d", '{"max_sequence_length":256,"prompt_2":"12"}'),
        ("e", '{"prompt_2":"q","true_cfg_scale":1}'),
    ]


def test_a_column_that_is_kept_in_the_metadata_is_no_argument() -> None:
    Path("rows.jsonl").write_text('{"prompt": "e", "arguments.true_cfg_scale": 3}\n')
    [entry] = [
        entry
        for _image_id, entry in prepared(
            "prompts_from: {file: rows.jsonl, columns: [arguments.true_cfg_scale]}\n"
        ).entries()
    ]
    assert entry.request.arguments == "{}"
    assert entry.columns == {"arguments.true_cfg_scale": 3}


def test_a_parquet_file_gives_single_arguments_where_its_other_columns_are_ignored() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = {"prompt": ["a", "b"], "arguments.max_sequence_length": [256.0, None], "score": [1, 2]}
    write_table(pyarrow.table(table), "rows.parquet")
    assert arguments("prompts_from: {file: rows.parquet, ignore_others: true}\n") == [
        ("a", '{"max_sequence_length":256}'),
        ("b", "{}"),
    ]


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        (
            "sweep: {arguments.true_cfg_scale: [1, x]}",
            "m.yaml:4:39: sweep.arguments.true_cfg_scale[1] = x: must be a number",
        ),
        (
            "sweep: {arguments.true_cfg_scale: [1, 1.0]}",
            "m.yaml:4:35: sweep.arguments.true_cfg_scale = a list of 2: holds 1 twice: remove one",
        ),
        (
            "sweep: {arguments.true_cfg_scal: [1]}",
            "m.yaml:4:35: sweep.arguments.true_cfg_scal[0] = 1: FluxPipeline has no such argument: did you"
            " mean true_cfg_scale?",
        ),
        (
            "sweep: {arguments.true_cfg_scale: }",
            "m.yaml:4:35: sweep.arguments.true_cfg_scale = (nothing): must be a list",
        ),
        (
            "sweep: {arguments.true_cfg_scale: [{a: 1}]}",
            "m.yaml:4:36: sweep.arguments.true_cfg_scale[0] = a mapping: must be a number, true or false,"
            " text, null, or a list of these",
        ),
        (
            "sweep: {true_cfg_scale: [1]}",
            "m.yaml:4:9: sweep.true_cfg_scale: no such key: did you mean arguments.true_cfg_scale?",
        ),
        (
            "sweep: {arguments.true_cfg_scale: [1], arguments: [{prompt_2: a}]}",
            "m.yaml:4:9: sweep.arguments.true_cfg_scale: is in `arguments` too: remove one of them",
        ),
        (
            "settings: {arguments.true_cfg_scale: 2}",
            "m.yaml:4:12: settings.arguments.true_cfg_scale: no such key: did you mean arguments:"
            " {true_cfg_scale: …}?",
        ),
        (
            "true_cfg_scale: 2",
            "m.yaml:4:1: true_cfg_scale: no such key: did you mean settings: {arguments: {true_cfg_scale:"
            " …}}?",
        ),
    ],
)
def test_a_wrong_key_or_value_is_told_at_its_place(rest: str, told: str) -> None:
    assert refusal(f"prompts: [a]\n{rest}\n") == [told]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("arguments: {true_cfg_scale: 1}", "true_cfg_scale: is in `sweep` too: remove one of them"),
        ("arguments.true_cfg_scale: 1", "true_cfg_scale: is in `sweep` too: remove one of them"),
        (
            "arguments: {prompt_2: x}, arguments.prompt_2: y",
            "prompt_2: is in `arguments` too: remove one of them",
        ),
    ],
)
def test_a_prompt_that_gives_an_argument_twice_is_refused(line: str, told: str) -> None:
    [found] = refusal(f"prompts: [{{prompt: a, {line}}}]\nsweep: {{arguments.true_cfg_scale: [1]}}\n")
    assert found.startswith("m.yaml:3:")
    assert found.endswith(f": prompts[0].arguments.{told}")


def test_a_prompts_single_argument_is_refused_where_whole_mappings_are_swept() -> None:
    assert refusal("prompts: [{prompt: a, arguments.prompt_2: x}]\nsweep: {arguments: [{}]}\n") == [
        "m.yaml:3:23: prompts[0].arguments.prompt_2: is in `sweep` too: remove one of them"
    ]


def test_a_wrong_argument_is_told_where_it_was_given() -> None:
    assert refusal(
        "prompts: [{prompt: b, arguments.prompt_2: 2}, {prompt: b, arguments.true_cfg_scale: 2}]\n"
        "settings: {arguments: {true_cfg_scale: a}}\n"
    ) == [
        "m.yaml:3:43: prompts[0].arguments.prompt_2 = 2: must be a text: write it in quotes, or null",
        "m.yaml:4:40: settings.arguments.true_cfg_scale = a: must be a number",
    ]


def test_a_value_that_python_holds_for_equal_is_told_apart() -> None:
    assert refusal(
        "prompts: [{prompt: a, arguments.true_cfg_scale: 1}, {prompt: b, arguments.true_cfg_scale: true}]\n"
    ) == ["m.yaml:3:91: prompts[1].arguments.true_cfg_scale = true: must be a number"]


def test_rows_that_give_an_argument_wrongly_or_twice_are_told() -> None:
    Path("rows.jsonl").write_text(
        '{"prompt": "a", "arguments": {"true_cfg_scale": 1}, "arguments.true_cfg_scale": 2}\n'
        '{"prompt": "a", "arguments.true_cfg_scale": [[1]]}\n'
        '{"prompt": "a", "arguments.true_cfg_scal": 1}\n'
        '{"prompt": "a", "true_cfg_scale": 1}\n'
        '{"prompt": "a", "q": 1}\n'
        '{"prompt": "a", "arguments": {"prompt_2": "x"}}\n'
    )
    found = refusal(
        "prompts_from: {file: rows.jsonl, fields: {arguments.prompt_2: q}}\n"
        "sweep: {arguments.prompt_2: [x]}\n"
    )
    assert [line.split("rows.jsonl:")[1] for line in found] == [
        "1: arguments.true_cfg_scale: `arguments` gives it too: remove one of them",
        "2: arguments.true_cfg_scale = a list of 1: must not hold lists in a list",
        "3: arguments.true_cfg_scal = 1: FluxPipeline has no such argument: did you mean true_cfg_scale?",
        "4: true_cfg_scale: no such key: did you mean arguments.true_cfg_scale? Write prompts_from: {file: "
        "rows.jsonl, fields: {arguments.prompt_2: q}, columns: [true_cfg_scale]} to keep it in the metadata, "
        "or prompts_from: {file: rows.jsonl, fields: {arguments.prompt_2: q}, ignore_others: true} to leave "
        "it out",
        "5: q: the manifest's `sweep` gives it too: remove one of them",
        "6: arguments.prompt_2: the manifest's `sweep` gives it too: remove one of them",
    ]


def test_a_manifest_that_is_kept_says_single_arguments_as_they_were_written() -> None:
    kept = prepared(
        "prompts: [{prompt: a, arguments.prompt_2: null}]\nsweep: {arguments.true_cfg_scale: [1, 4.5]}\n"
    ).pinned
    written = json.loads(json.dumps(kept.to_json()))
    assert written["sweep"] == {"arguments.true_cfg_scale": [1, 4.5]}
    assert written["prompts"] == [{"prompt": "a", "arguments.prompt_2": None}]
    assert Manifest.from_json(written) == kept


def test_the_schema_takes_dotted_names_and_no_other_key() -> None:
    from producer.manifest.manifest import json_schema

    for part in ("Sweep", "PromptLine"):
        schema = json_schema()["$defs"][part]
        [pattern] = schema["patternProperties"]
        assert pattern == r"^arguments\.[^\W\d]\w*$"
        assert schema["additionalProperties"] is False

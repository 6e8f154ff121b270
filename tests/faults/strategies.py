"""Manifests, prompt files, entries and JSON, right and nearly right."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml
from hypothesis import strategies as st

from jobs.entry import Entry, derived_seed
from jobs.request import ImageRequest

BASE = ImageRequest(prompt="", seed=0, model="instant", revision="instant-1", height=16, width=16)
JOB = "cats"

_SIZES = st.sampled_from([8, 16, 24])
_STEPS = st.integers(1, 1000)
_GUIDANCE = st.sampled_from([1, 1.0, 1.5, 7.5, 100.0])
_SCHEDULERS = st.sampled_from(
    ["LMS", "ddim", "Euler a", "k_euler", "DPM++ 2M Karras", "EulerDiscreteScheduler"]
)
_SEEDS = st.integers(0, 3) | st.integers(0, 2**63 - 1)
TEXTS = st.sampled_from(
    ["", "a fox", "a, \"b\" 'c'", "été 🦊", "two\nlines", "x\u2028y", " a ", "null", "{a}"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_COLUMNS = st.dictionaries(
    st.sampled_from(["split", "score", "note", "ümlaut"]),
    st.none() | st.integers(-5, 5).map(str) | TEXTS,
    max_size=2,
)
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "negative_prompt": TEXTS,
    "height": _SIZES,
    "width": _SIZES,
    "num_inference_steps": _STEPS,
    "guidance_scale": _GUIDANCE,
    "scheduler": _SCHEDULERS,
}
SWEPT = SETTINGS | {
    "guidance_scale": st.sampled_from([1.0, 1.5, 7.5]),
    "scheduler": st.sampled_from(["LMS", "ddim", "Euler a"]),
}
"""Values that differ when their texts do."""

# What a file, a message or a person gives in the place of something else.
ODD_TEXTS = st.sampled_from(
    [
        "", "x", "\0", "a\nb", "\x1b[31m", "\ud800", "\uffff", "é" * 40, "a" * 300, "../outside.png", "/",
        "..", "²", "9" * 5000, "7", "0" * 64, "cats-3", "~nobody/x", "--limit -1", "00000", "NaN",
    ]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 1, 7, 8, 10**9, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40])
    | st.sampled_from([0.0, -0.5, 7.5, 1e308, float("nan"), float("inf"), float("-inf")])
    | ODD_TEXTS
)
JUNK = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(ODD_TEXTS, below, max_size=2),
    max_leaves=4,
)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in below for place in _places(item, (*path, key)))]


@st.composite
def twisted(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, doubled, renamed or added to."""
    root = {"": copy.deepcopy(value)}
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(_places(root)[1:]))
        around: Any = root
        for step in path:
            around = around[step]
        match draw(st.sampled_from(["replace", "replace", "remove", "double", "rename", "add"])):
            case "remove" if path:
                del around[last]
            case "double" if isinstance(around, list):
                around.append(around[last])
            case "rename" if path and isinstance(around, dict):
                around[draw(st.sampled_from([*around, "unknown", "seeds", "id"]))] = around.pop(last)
            case "add" if isinstance(around[last], dict):
                around[last][draw(ODD_TEXTS)] = draw(JUNK)
            case _:
                around[last] = draw(JUNK)
    return root[""]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some flipped, cut off, put in or left out."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "cut", "put in", "leave out"])):
            case "flip" if data:
                data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "leave out":
                data = data[:at] + data[at + draw(st.integers(1, 40)) :]
            case _:
                data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
    return data


@st.composite
def nested(draw: st.DrawFn, text: str) -> str:
    """JSON text with its first null become lists in lists."""
    depth = draw(st.sampled_from([60, 400, 5000]))
    return text.replace("null", "[" * depth + "]" * depth, 1)


@st.composite
def prompts(draw: st.DrawFn) -> dict[str, Any]:
    """A prompt with settings of its own."""
    line = draw(
        st.fixed_dictionaries({"prompt": TEXTS}, optional={**SETTINGS, "id": TEXTS, "columns": _COLUMNS})
    )
    match draw(st.sampled_from(["plain", "seed", "seeds", "several", "template", "sample"])):
        case "seed":
            line |= {"seed": draw(st.integers(0, 3))}
        case "seeds":
            line |= {"seeds": draw(st.lists(_SEEDS, min_size=1, max_size=3))}
        case "several":
            line |= {"images_per_prompt": draw(st.integers(1, 4))}
        case "template" | "sample" as kind:
            values = st.lists(TEXTS, min_size=1, max_size=3)
            line |= {"prompt": "a {b} {c}, {{}} {b}", "variables": {"b": draw(values), "c": draw(values)}}
            if kind == "sample":
                line |= {"sample": 1, "sample_seed": draw(_SEEDS)}
    return line


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """A manifest that loads, but perhaps for what its lines say between them."""
    manifest = draw(
        st.fixed_dictionaries(
            {
                "name": st.just(JOB),
                "model": st.just("instant"),
                "prompts": st.lists(TEXTS | prompts(), min_size=1, max_size=4),
            },
            optional={
                "layout": st.sampled_from(["files", "webdataset"]),
                "image_format": st.sampled_from(["png", "jpeg", "webp"]),
                "image_quality": st.integers(1, 100),
                "shard_size": st.integers(1, 4),
                "priority": st.integers(0, 9),
                "max_failures": st.none() | st.integers(1, 9),
                "retention": st.sampled_from(["7d", 60]),
                "settings": st.fixed_dictionaries(
                    {}, optional={**SETTINGS, "images_per_prompt": st.integers(1, 3)}
                ),
            },
        )
    )
    used = {*manifest.get("settings", ()), *(key for line in manifest["prompts"] if line for key in line)}
    swept = {name: values for name, values in SWEPT.items() if name not in used}
    if swept and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(swept)))
        values = draw(st.lists(swept[name], min_size=1, max_size=3, unique_by=str))
        manifest["sweep"] = {name: values}
    return manifest


_YAML_TRICKS = [
    "<<: *a\n", "x: &a {b: *a}\n", "? [1]\n: 2\n", "y: !!python/object:os.system x\n", "z: !!binary aGk=\n",
    "---\n", "...\n", "name: twice\n", "seed: 010\n", "n: 12:30\n", "b: no\n", "t: 2001-01-01\n", "\t- x\n",
    "%YAML 9.9\n", "a: &a [x]\nb: [*a, *a]\n", '"\\0\\e": "\\x07"\n', "k: .nan\n", "k: 1e999\n",
    "k: |\n  x\n", "k: [\n", "{\n", "\ufeff", "k: " + "[" * 60 + "]" * 60 + "\n",
    "k: " + "9" * 60 + "\n", "prompts_from: [" + "a" * 300 + ".txt]\n",
]  # fmt: skip


@st.composite
def manifest_texts(draw: st.DrawFn) -> bytes:
    """YAML near a manifest: its values, its text or its bytes are off."""
    manifest = draw(manifests())
    if draw(st.booleans()):
        manifest = draw(twisted(manifest))
    text = (
        yaml.safe_dump(manifest, allow_unicode=True)
        if draw(st.booleans())
        else json.dumps(manifest, indent=1)
    )
    lines = text.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(_YAML_TRICKS)))
    data = "".join(lines).encode("utf-8", "surrogatepass")
    return draw(damaged(data)) if draw(st.booleans()) else data


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """The entries of a shard, as a submission makes them."""
    made = []
    for _ in range(draw(st.integers(1, 5))):
        own = draw(st.fixed_dictionaries({}, optional={**SETTINGS, "init_latents": st.just("0" * 64)}))
        own |= {"scheduler": "DDIM"} if "scheduler" in own else {}
        own |= {"guidance_scale": float(own["guidance_scale"])} if "guidance_scale" in own else {}
        ordinal = draw(st.none() | st.integers(0, 3))
        values = {**{name: getattr(BASE, name) for name in BASE.__slots__}, **own, "prompt": draw(TEXTS)}
        request = ImageRequest(**values | {"seed": draw(_SEEDS)})
        if ordinal is not None:
            request = ImageRequest(**values | {"seed": derived_seed(JOB, request, ordinal)})
        columns = draw(_COLUMNS)
        made.append(
            Entry.of(request=request, id=draw(st.none() | TEXTS), columns=columns, seed_ordinal=ordinal)
        )
    return made


JSON_ROWS = st.builds(
    lambda row: json.dumps(row).encode(),
    st.fixed_dictionaries(
        {"prompt": TEXTS}, optional={**SETTINGS, "seed": _SEEDS, "id": TEXTS, "split": TEXTS}
    ),
)
BAD_JSON_ROWS = st.sampled_from(
    [
        b"{", b"[]", b"7", b"{}", b"\xff\xfe", b'{"prompt": "a\xff"}', b'{"prompt": 7}',
        b'{"prompt": "\\u0000"}', b'{"prompt": "\\ud800"}', b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "a", "height": 9}',
        b'{"prompt": "a", "unknown\\n": 1}', b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "a", "guidance_scale": NaN}', b'{"prompt": "a", "seeds": []}', b'{"prompt": []}',
        b'{"prompt": "a", "split": ' + b"[" * 300 + b"]" * 300 + b"}", b"[" * 90_000,
        b'{"prompt": "a", "id": 7.5}', b'{"prompt": "a", "split": {"b": NaN}}',
        b'{"prompt": "a", "seed": 1, "seeds": [1]}',
        b"\xef\xbb\xbf{}",
    ]
)  # fmt: skip
_BLANK = st.sampled_from([b"", b"  ", b"\t", b"\r"])
BLANK_ROWS = {".jsonl": _BLANK, ".txt": _BLANK, ".csv": st.just(b""), ".tsv": st.just(b"")}


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def table_rows(separator: str) -> st.SearchStrategy[bytes]:
    """Rows under `prompt, height, split`, cells in quotes; none for whose lines a file is refused."""
    cells = st.lists(TEXTS | st.sampled_from(["8", "16", "nine"]), min_size=1, max_size=4)

    def written(row: list[str]) -> bytes:
        for at, cell in enumerate(row):
            if len(row) != 3 or at == 1:
                row[at] = cell.replace("\r", " ").replace("\n", " ")
        return separator.join(map(_quoted, row)).encode()

    return cells.map(written)


def bad_table_rows(separator: str) -> st.SearchStrategy[bytes]:
    """Rows that are none, each on its line."""
    return st.sampled_from(
        [b'"a"b', b"\xff", b"a", b"a\0b", separator.join(["a", "8", "x", "y"]).encode(), b"x" * 140_000]
    )


PLAIN_ROWS = TEXTS.map(lambda text: text.replace("\n", " ").replace("\r", " ").encode())
BAD_PLAIN_ROWS = st.sampled_from(
    [
        b"a --w 9", b"a --q 7", b"a --w 8 --w 8", b"--prompt", b'--prompt "a', b"a --h", b"\xff", b"a\0b",
        b"a --d 1,,2", b"--steps 7", b"a --s 1e3", b"a --l nan", b"a --n", b"--prompt a --seed -1", b"# a",
        b"a --w 99999999999999999999",
    ]
)  # fmt: skip

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

import jobs.model_files.model_folder
from jobs.errors import ModelError
from jobs.model_files.hub import HUB_TIMEOUT
from jobs.model_files.model_folder import folder_revision
from jobs.models.models import BUILT_IN, ModelDefaults, ModelRef, resolve_model
from jobs.request import IMAGE_SETTINGS

COMMIT = "133a221b8aa7292a167afc5127cb63fb5005638b"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def _no_network(*_: object, **__: object) -> object:
    raise OfflineModeIsEnabled("offline mode is enabled")


def _pipeline(folder: Path, weights: bytes = b"weights") -> Path:
    for component in ("unet", "vae", "tokenizer"):
        (folder / component).mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]}
    index |= {name: ["diffusers", "X"] for name in ("unet", "vae", "tokenizer", "scheduler")}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text('{"in_channels": 4}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    (folder / "vae" / "config.json").write_text('{"block_out_channels": [16, 32, 64, 64]}')
    (folder / "tokenizer" / "merges.txt").write_text("a b\n")
    return folder


def test_built_in_models_are_known_without_a_file() -> None:
    random = resolve_model("shapes-random")
    assert (random.model, random.label, random.revision) == (
        "shapes-random",
        "shapes-random",
        "shapes-random-1",
    )
    assert (random.latent_channels, random.latent_scale) == (4, 4)
    assert "noise" in random.remark
    assert resolve_model("instant", "instant-1").latent_channels is None
    trained = resolve_model("shapes")
    assert (trained.model, trained.label, trained.remark) == ("shapes", "shapes", "")
    assert (trained.latent_channels, trained.latent_scale) == (8, 8)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "gpt2",
        "a/b/c",
        "a b/c",
        "../",
        "a/..",
        "-/x",
        "a//b",
        "models--a--b",
        "a--b/c",
        "a/b..c",
        "a/b-",
        "a./b",
    ],
)
def test_a_name_of_no_known_form_is_refused(model: str) -> None:
    with pytest.raises(ModelError):
        resolve_model(model)


def test_another_revision_than_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    folder = _pipeline(tmp_path / "sd")
    with pytest.raises(ModelError, match="holds revision instant-1, not instant-2"):
        resolve_model("instant", "instant-2")
    with pytest.raises(ModelError, match="holds revision sha256:"):
        resolve_model(str(folder), "sha256:" + "0" * 64)
    assert resolve_model(str(folder), folder_revision(folder)).label == "sd"


def test_a_folder_is_resolved_to_its_contents_and_its_latents_form(tmp_path: Path) -> None:
    folder = _pipeline(tmp_path / "sd")
    (tmp_path / "link").symlink_to(folder)
    ref = resolve_model(str(tmp_path / "link"))
    assert ref == ModelRef(
        str(folder), "sd", folder_revision(folder), 4, 8, pipeline="StableDiffusionPipeline"
    )
    assert ref.revision.startswith("sha256:")


def test_a_moved_folder_keeps_its_revision(tmp_path: Path) -> None:
    before = folder_revision(_pipeline(tmp_path / "sd"))
    shutil.move(tmp_path / "sd", tmp_path / "elsewhere")
    assert folder_revision(tmp_path / "elsewhere") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "unet" / "config.json").write_text('{"in_channels": 8}'),
        lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"WEIGHTS"),
        lambda folder: (folder / "tokenizer" / "merges.txt").rename(folder / "tokenizer" / "other.txt"),
        lambda folder: (folder / "vae" / "new.safetensors").write_bytes(b""),
        lambda folder: (folder / "model_index.json").write_text("{}"),
    ],
)
def test_a_change_in_what_is_loaded_changes_the_revision(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = _pipeline(tmp_path / "sd")
    before = folder_revision(folder)
    change(folder)
    assert folder_revision(folder) != before


def test_what_is_never_loaded_does_not_count(tmp_path: Path) -> None:
    folder = _pipeline(tmp_path / "sd")
    before = folder_revision(folder)
    (folder / "README.md").write_text("read me")
    (folder / "v1-4.safetensors").write_bytes(b"another checkpoint")
    (folder / "unet" / ".lock").write_text("")
    (folder / ".git").mkdir()
    assert folder_revision(folder) == before


def test_a_stable_diffusion_folder_keeps_the_revision_that_outputs_were_rendered_with(tmp_path: Path) -> None:
    folder = _pipeline(tmp_path / "sd")
    pinned = "sha256:6c62d252e1f7fad2b7fb827646951d0a203cf9bce56def316266c83fe24aa7b0"
    assert folder_revision(folder) == pinned
    (folder / "tokenizer" / "chat_template.jinja").write_text("another suffix")
    (folder / "tokenizer" / "nested").mkdir()
    (folder / "tokenizer" / "nested" / "vocab.json").write_text("{}")
    assert folder_revision(folder) == pinned


def _of_another_class(folder: Path) -> Path:
    """The same files, of a pipeline with a safety checker."""
    index = json.loads((_pipeline(folder) / "model_index.json").read_text())
    index |= {"_class_name": "FluxPipeline", "safety_checker": ["stable_diffusion", "X"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    for component in ("scheduler", "safety_checker"):
        (folder / component).mkdir()
    return folder


@pytest.mark.parametrize(
    "file",
    [
        "tokenizer/chat_template.jinja",
        "tokenizer/additional_chat_templates/tool.jinja",
        "tokenizer/qwen.tiktoken",
        "tokenizer/source.spm",
        "tokenizer/LICENSE",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    ],
)
def test_every_file_of_a_component_counts_in_other_classes(tmp_path: Path, file: str) -> None:
    folder = _of_another_class(tmp_path / "flux")
    before = folder_revision(folder)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text("one")
    changed = folder_revision(folder)
    (folder / file).write_text("two")
    assert len({before, changed, folder_revision(folder)}) == 3


@pytest.mark.parametrize(
    "file",
    ["README.md", "flux1-dev.safetensors", "unet/.lock", "unet/README.md", "safety_checker/config.json"],
)
def test_what_other_classes_never_load_does_not_count(tmp_path: Path, file: str) -> None:
    folder = _of_another_class(tmp_path / "flux")
    before = folder_revision(folder)
    (folder / file).write_text("{}")
    assert folder_revision(folder) == before
    resolve_model(str(folder))


def test_a_setting_of_two_numbers_is_no_component(tmp_path: Path) -> None:
    folder = _of_another_class(tmp_path / "krea")
    index = json.loads((folder / "model_index.json").read_text()) | {"text_encoder_select_layers": [1, 2]}
    (folder / "model_index.json").write_text(json.dumps(index))
    resolve_model(str(folder))
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder_select_layers": [1, "Mine"]}))
    with pytest.raises(ModelError, match="text_encoder_select_layers is of 1: code"):
        resolve_model(str(folder))


def test_a_link_to_a_folder_within_a_component_is_refused(tmp_path: Path) -> None:
    """It could lead anywhere, and round in a circle."""
    folder = _of_another_class(tmp_path / "flux")
    (folder / "tokenizer" / "more").symlink_to(folder)
    with pytest.raises(ModelError, match="tokenizer/more: is a link to a folder"):
        folder_revision(folder)


def test_the_size_of_each_file_is_told_once_it_is_hashed(tmp_path: Path) -> None:
    folder = _pipeline(tmp_path / "sd")
    sizes: list[int] = []
    folder_revision(folder, sizes.append)
    files = [folder / "model_index.json", *folder.glob("*/*")]
    assert sorted(sizes) == sorted(file.stat().st_size for file in files)


def test_large_files_are_hashed_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.model_files.model_folder, "_SETTLED_NS", -(10**9))
    folder = _pipeline(tmp_path / "sd", weights=b"a" * (1 << 20))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    first = folder_revision(folder)
    read: list[object] = []
    digest = jobs.model_files.model_folder.hashlib.file_digest

    def counted(file: object, name: str) -> object:
        read.append(file)
        return digest(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs.model_files.model_folder.hashlib, "file_digest", counted)
    assert folder_revision(folder) == first
    assert read == []
    times = weights.stat()
    weights.write_bytes(b"b" * (1 << 20))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert folder_revision(folder) != first
    assert len(read) == 1


def test_a_file_written_just_now_is_not_cached_because_it_may_change_unseen(tmp_path: Path) -> None:
    folder_revision(_pipeline(tmp_path / "sd", weights=b"a" * (1 << 20)))
    assert not (tmp_path / "cache").exists()


def test_a_damaged_cache_or_one_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.model_files.model_folder, "_SETTLED_NS", -(10**9))
    folder = _pipeline(tmp_path / "sd", weights=b"a" * (1 << 20))
    first = folder_revision(folder)
    (cached,) = (tmp_path / "cache" / "imagemill" / "hashes").iterdir()
    cached.write_text("half")
    assert folder_revision(folder) == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "model_index.json"))
    assert folder_revision(folder) == first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "there is no such folder"),
        (lambda folder: (folder / "model_index.json").unlink(), "holds no model_index.json"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "must hold a JSON object"),
        (lambda folder: (folder / "unet" / "config.json").write_text("{}"), "has no in_channels"),
        (
            lambda folder: (folder / "model_index.json").write_text('{"../x": ["diffusers", "X"]}'),
            "is not the name of a component",
        ),
    ],
)
def test_a_folder_that_is_no_pipeline_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = _pipeline(tmp_path / "sd")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        resolve_model(str(folder))


def test_a_commit_is_taken_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", _no_network)
    ref = resolve_model("org/name", COMMIT)
    assert (ref.model, ref.revision, ref.pipeline, ref.defaults) == (
        "org/name",
        COMMIT,
        None,
        ModelDefaults(),
    )
    assert ref.remark.startswith(
        "what org/name is, a worker finds out: its model_index.json is not at hand ("
    )


def test_a_cached_snapshot_shows_the_latents_form(tmp_path: Path) -> None:
    _pipeline(tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT)
    assert resolve_model("org/name", COMMIT) == ModelRef(
        "org/name", "org/name", COMMIT, 4, 8, pipeline="StableDiffusionPipeline"
    )


@pytest.mark.parametrize("revision", [None, "fp16"])
def test_a_branch_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, revision: str | None) -> None:
    asked: list[object] = []

    def model_info(_: object, name: str, *, revision: str | None, timeout: float) -> object:
        asked.append((name, revision, timeout))
        return huggingface_hub.ModelInfo(id=name, sha=COMMIT)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    assert resolve_model("org/name", revision).revision == COMMIT
    assert asked == [("org/name", revision, HUB_TIMEOUT)]


def test_without_the_network_the_local_cache_knows_the_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", _no_network)
    refs = tmp_path / "hub" / "models--org--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    assert resolve_model("org/name").revision == COMMIT
    with pytest.raises(ModelError, match="give `revision: <commit>`"):
        resolve_model("org/name", "fp16")


def test_a_branch_whose_name_leads_out_of_the_cache_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", _no_network)
    (tmp_path / "hub" / "models--org--name" / "refs").mkdir(parents=True)
    (tmp_path / "hub" / "elsewhere").write_text(COMMIT)
    with pytest.raises(ModelError, match="the local cache does not know"):
        resolve_model("org/name", "../../elsewhere")


def test_a_server_that_refuses_connections_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    with pytest.raises(ModelError, match=r"cannot be asked which commit main is .*give `revision: <commit>`"):
        resolve_model("org/name")


def test_a_model_whose_loading_could_run_its_code_is_refused_with_the_file(tmp_path: Path) -> None:
    def spoilt(name: str, spoil: Callable[[Path], object]) -> str:
        spoil(_pipeline(tmp_path / name))
        with pytest.raises(ModelError) as refused:
            resolve_model(str(tmp_path / name))
        return str(refused.value)

    def pickled(folder: Path) -> None:
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))

    def of_another_library(folder: Path) -> None:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | {"vae": ["subprocess", "Popen"]}))

    auto_map = json.dumps({"in_channels": 4, "auto_map": {"AutoModel": "mine.Model"}})
    assert "unet: its weights are pickles" in spoilt("pickles", pickled)
    assert "vae is of 'subprocess'" in spoilt("library", of_another_library)
    message = spoilt("map", lambda folder: (folder / "unet" / "config.json").write_text(auto_map))
    assert "unet/config.json: is or names code" in message
    message = spoilt("code", lambda folder: (folder / "vae" / "diffusers.py").write_text("print('ran')"))
    assert "vae/diffusers.py: is or names code" in message


def test_pickles_beside_safetensors_and_of_what_is_not_loaded_do_no_harm(tmp_path: Path) -> None:
    folder = _pipeline(tmp_path / "sd")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    for place in ("unet", "safety_checker"):
        (folder / place / "pytorch_model.bin").write_bytes(b"a pickle")
    assert resolve_model(str(folder)).revision.startswith("sha256:")


def test_a_model_has_defaults_for_the_settings_that_say_so_and_those_are_stable_diffusions() -> None:
    by_model = {name: setting for name, setting in IMAGE_SETTINGS.items() if setting.by_model}
    assert asdict(ModelDefaults()) == {name: setting.default for name, setting in by_model.items()}
    assert ModelDefaults() == ModelDefaults(512, 512, 50, 7.5, "LMS")
    assert BUILT_IN["shapes"].defaults == ModelDefaults(64, 64, 20, 3.0, "DDIM")
    assert {BUILT_IN[name].defaults for name in ("instant", "shapes-random")} == {ModelDefaults()}
    for one in BUILT_IN.values():
        given = asdict(one.defaults)
        assert all(by_model[name].is_right(value) for name, value in given.items())


@pytest.mark.parametrize(
    ("unet", "size"),
    [
        ({"sample_size": 96}, (768, 768)),
        ({"sample_size": [64, 96]}, (512, 768)),
        ({"sample_size": 32}, (256, 256)),
        # diffusers takes these for a mistake of their day.
        ({"sample_size": 32, "_diffusers_version": "0.2.2"}, (512, 512)),
        ({"sample_size": 32, "_diffusers_version": "0.10.0.dev0"}, (256, 256)),
        ({}, (512, 512)),
        ({"sample_size": None}, (512, 512)),
        ({"sample_size": "64"}, (512, 512)),
        ({"sample_size": 0}, (512, 512)),
        ({"sample_size": 2000}, (512, 512)),
    ],
)
def test_a_folders_default_size_is_its_pipelines_own(
    tmp_path: Path, unet: dict[str, object], size: tuple[int, int]
) -> None:
    folder = _pipeline(tmp_path / "sd")
    (folder / "unet" / "config.json").write_text(json.dumps({"in_channels": 4} | unet))
    height, width = size
    assert resolve_model(str(folder)).defaults == ModelDefaults(height=height, width=width)


def test_a_hub_models_default_size_does_not_depend_on_the_cache_which_only_knows_another(
    tmp_path: Path,
) -> None:
    assert resolve_model("org/name", COMMIT).defaults == ModelDefaults()
    folder = _pipeline(tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT)
    (folder / "unet" / "config.json").write_text('{"in_channels": 4, "sample_size": 96}')
    known = resolve_model("org/name", COMMIT)
    assert known.defaults == ModelDefaults()
    assert known.trained_size == (768, 768)

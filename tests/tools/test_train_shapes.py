from __future__ import annotations

from pathlib import Path

import pytest

from tools.train_shapes import STAGES, main

TINY = ["--vae-steps=1", "--unet-steps=1", "--gate-pictures=4", "--pictures=6", "--hard-pictures=2"]


def test_stages_run_in_their_order_and_are_skipped_when_their_results_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = [f"--out={folder}", "--until=export", "--allow-bad-vae", *TINY]

    def printed() -> dict[str, str]:
        lines = [line.split(": ", 1) for line in capsys.readouterr().out.splitlines()]
        return {line[0]: line[1] for line in lines if line[0] in STAGES}

    main([*arguments, "--until=gate"])
    assert list(printed()) == ["tokenizer", "VAE", "gate"]
    main([*arguments, "--resume"])
    stages = printed()
    assert list(stages) == list(STAGES[:-1])
    assert [stage for stage, text in stages.items() if "skipped" in text] == ["VAE", "gate"]
    assert (folder / "curves.png").is_file()
    main([*arguments, "--resume"])
    stages = printed()
    assert list(stages) == list(STAGES[:-1])
    assert [stage for stage, text in stages.items() if "skipped" in text] == list(STAGES[1:-1])


def test_a_folder_of_an_earlier_run_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "vae.pt").write_bytes(b"hours of work")
    with pytest.raises(SystemExit):
        main([f"--out={folder}"])
    assert f"--out {folder}: is not empty: give --resume to go on there" in capsys.readouterr().err
    assert (folder / "vae.pt").read_bytes() == b"hours of work"


def test_help_names_the_stages_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "tokenizer, VAE, gate, latents, UNet, export, evaluate" in text


@pytest.mark.parametrize("option", ["--vae-steps=0", "--save-every=0", "--look-every=-1"])
def test_steps_below_1_are_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"--out={tmp_path}", option])
    assert "must be at least 1" in capsys.readouterr().err

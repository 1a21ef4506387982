"""`--set KEY=VALUE`: what is refused, and what precision does to a search."""

from __future__ import annotations

import json
import pathlib

import pytest

from hpo import precision
from hpo.errors import UsageError
from hpo.settings import SETTINGS
from tests.support.cli_runs import launch, read


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (["presicion=float32"], "did you mean 'precision'?"),
        (["=x"], "known: "),
        (["precision"], "give a value, precision=float32|"),
        (["precision=bfloat16"], "did you mean 'mixed_bfloat16'?"),
        (["precision=float32", "precision=mixed_bfloat16"], "give one"),
        (["early_stopping=no"], "give on or off"),
    ],
)
def test_what_cannot_be_set_is_refused(tmp_path: pathlib.Path, typed: list[str], why: str) -> None:
    options = [word for text in typed for word in ("--set", text)]
    done = launch("run", "digits", *options, "--runs", str(tmp_path))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert why in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("typed", ["precision=float32", "early_stopping=off"])
def test_what_only_a_keras_model_has_is_refused_for_a_function(
    tmp_path: pathlib.Path, typed: str
) -> None:
    study = "examples/plain_function.py"
    done = launch("run", study, "--set", typed, "--runs", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "for Keras models" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", precision.CHOICES)
def test_a_precision_needs_a_gpu_or_a_flag_of_the_processor(
    tmp_path: pathlib.Path, name: str
) -> None:
    plain, made = tmp_path / "plain", tmp_path / "made"
    plain.write_text("flags : fpu avx512f avx512_bf16_not\n")
    made.write_text("flags : fpu avx512_fp16 avx512_bf16\n")
    precision.check_here(name, has_gpu=True, cpuinfo=plain)
    precision.check_here(name, has_gpu=False, cpuinfo=made)
    if name != precision.DEFAULT:
        for cpuinfo in (plain, tmp_path / "nothing"):
            with pytest.raises(UsageError, match="needs a GPU, or a processor with"):
                precision.check_here(name, has_gpu=False, cpuinfo=cpuinfo)


def test_help_names_every_setting() -> None:
    words = launch("run", "--help").stdout.split()
    assert all(f"{key}={row.values}," in words for key, row in SETTINGS.items())


def _bfloat16_here() -> bool:
    try:
        precision.check_here("mixed_bfloat16", has_gpu=False)
    except UsageError:
        return False
    return True


@pytest.mark.skipif(not _bfloat16_here(), reason="no processor made for bfloat16")
def test_precision_stands_in_the_record_and_goes_with_the_winner(tmp_path: pathlib.Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "best.keras"
    arguments = ["run", "digits", "--trials", "1", "--workers", "1", "--epochs", "1"]
    arguments += ["--seed", "3", "--id", "half", "--runs", str(runs)]
    chosen = ["--set", "precision=mixed_bfloat16"]
    done = launch(*arguments, *chosen)
    assert done.returncode == 0, done.stderr
    (row,) = read(runs, "half", "trials")
    assert row["device"].endswith(" mixed_bfloat16") and row["device"].startswith("cpu:")
    done = launch("export", "half", "--out", str(out), "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    story = json.loads(out.with_name("best.keras.json").read_text())
    assert (story["precision"], story["device"]) == ("mixed_bfloat16", row["device"])
    assert story["threads"] == row["device"].count(",") + 1
    assert story["command"].endswith(" --set precision=mixed_bfloat16")
    # Evaluated as it was trained, before and now.
    assert story["test"] == read(runs, "half", "best")["test"]
    # Another precision is another search.
    done = launch(*arguments)
    assert done.returncode == 2 and "other settings" in done.stderr
    assert launch(*arguments, *chosen).returncode == 0

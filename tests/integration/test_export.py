"""`export`, as processes: the model that was tested, how it came about, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from hpo.run import Run
from hpo.study import Form
from tests.support.cli_runs import ROOT, LiveRun, assert_nothing_left, launch, wait_until
from tests.support.written_runs import KERAS, Book, save_weights

# Whoever opens the model has Keras, and nothing of this project but the data.
OPEN = """
import json, sys
sys.path.append(sys.argv[2])
import keras
from studies.digits import load_data
model = keras.models.load_model(sys.argv[1])
print(json.dumps(model.evaluate(*load_data()[1], verbose=0, return_dict=True)))
"""
DIGEST = """
import hashlib, json
from studies.digits import load_data
def digest(pair):
    found = hashlib.sha256()
    for array in pair:
        found.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()
train, test = load_data()
print(json.dumps({"train": digest(train), "test": digest(test)}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished search of the handwritten digits."""
    runs = tmp_path_factory.mktemp("exported") / "runs"
    options = ("--trials", "2", "--epochs", "2", "--train-examples", "600", "--seed", "3")
    place = ("--workers", "1", "--id", "digits-3", "--runs", str(runs))
    done = launch("run", "digits", *options, *place)
    assert done.returncode == 0, done.stderr + done.stdout
    return Run(runs / "digits-3")


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the best model of the run, exported by the command line."""
    folder = tmp_path_factory.mktemp("model")
    done = export(run, folder / "best.keras")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(folder / "best.keras") in done.stdout
    return folder


def export(run: Run, out: pathlib.Path, **options: Any) -> Any:
    runs = str(run.folder.parent)
    return launch("export", run.id, "--out", str(out), "--runs", runs, **options)


def best(run: Run) -> Any:
    return json.loads(
        launch("best", run.id, "--json", "--runs", str(run.folder.parent)).stdout,
    )


def python(code: str, *arguments: str, cwd: pathlib.Path = ROOT) -> Any:
    """What ``code`` prints as JSON in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def commit() -> str | None:
    """The project's commit as git tells it in other words; None without a repository."""
    if not (ROOT / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("-dirty" if changed else "")


def refused(run: Run, out: pathlib.Path, status: int = 2, **options: Any) -> str:
    """The one line of a refused export, which leaves nothing behind."""
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else None
    done = export(run, out, **options)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert (sorted(out.parent.iterdir()) if out.parent.is_dir() else None) == before
    line: str = done.stderr
    return line


# --- what is exported ------------------------------------------------------------------


def test_the_model_is_the_one_that_was_tested(
    run: Run, exported: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["best.keras", "best.keras.json"]
    found = python(OPEN, str(exported / "best.keras"), str(ROOT), cwd=tmp_path)
    assert found == pytest.approx(best(run)["test"], rel=1e-5)


def test_the_story_beside_it_is_complete(run: Run, exported: pathlib.Path) -> None:
    out = exported / "best.keras"
    story = json.loads((exported / "best.keras.json").read_text())
    text = (ROOT / "docs" / "export.md").read_text()
    assert all(f"`{name}`" in text for name in story)
    winner = best(run)
    assert {name: story[name] for name in winner} == winner
    reader = run.reader()
    rows = reader.records()
    reader.close()
    record = next(row for row in rows if row.trial_id == winner["trial_id"])
    assert story["run"] == "digits-3" and story["attempt"] == 1
    assert story["seeds"] == {"run": 3, "trial": record.seed}
    assert (story["objective"], story["direction"]) == ("val_accuracy", "max")
    names = ("engine", "sampler", "sampler_impl", "device")
    assert [story[name] for name in names] == [getattr(record, name) for name in names]
    assert (story["pruner"], story["precision"]) == ("none", "float32")
    assert record.device and story["threads"] == len(record.device.split(","))
    source = ROOT / "studies" / "digits.py"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert story["study"] == {"name": "digits", "file": "digits.py", "digest": digest}
    assert story["data"] == python(DIGEST)
    assert (story["epochs"], story["best_epoch"]) == (2, record.best_step)
    assert (story["batch_size"], story["train_examples"]) == (32, 600)
    assert record.ended_at and record.started_at
    assert story["fit_s"] == pytest.approx(record.ended_at - record.started_at, abs=1e-3)
    model = {"file": "best.keras", "sha256": hashlib.sha256(out.read_bytes()).hexdigest()}
    assert story["model"] == model
    assert story["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(story["versions"][name] for name in ("tensorflow", "keras", "keras-tuner", "numpy"))
    assert story["versions"]["tunefleet"] == commit()


def test_its_command_finds_the_same_winner_again(
    run: Run, exported: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    command = json.loads((exported / "best.keras.json").read_text())["command"]
    program, file, *arguments = shlex.split(command)
    assert (program, file, arguments[:2]) == ("python", "launch.py", ["run", "digits"])
    runs = tmp_path / "runs"
    done = launch(*arguments, "--workers", "1", "--id", "again", "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    second = Run(runs / "again")
    assert run.request.differences(second.request) == []
    first, again = best(run), best(second)
    assert {**again, "test": None} == {**first, "test": None}


def test_best_says_how_long_the_winner_was_fitted(run: Run) -> None:
    text = launch("best", run.id, "--runs", str(run.folder.parent)).stdout
    assert any(line.split()[0] == "fit" and line.endswith(" s") for line in text.splitlines())


def book_of(folder: pathlib.Path, text: str = KERAS, layer: str = "dense", **study: Any) -> Book:
    """A run whose chief still serves, with one completed trial and its weights."""
    book = Book(folder / "runs", "made", text=text, **{"form": Form.KERAS, **study})
    book.end(book.report(book.start(0), [0.75]))
    save_weights(book.run.weights / "0000.weights.h5", layer)
    return book


def test_a_run_that_goes_on_gives_its_best_so_far_by_the_study_as_it_was(
    tmp_path: pathlib.Path,
) -> None:
    book = book_of(tmp_path)
    request = dataclasses.replace(book.run.request, start=[{"rate": 0.25}])
    book.writer.set_meta({"request": dataclasses.asdict(request)})
    pathlib.Path(request.study).write_text("no study any more")
    done = export(book.run, tmp_path / "so-far.keras")
    book.close()
    assert done.returncode == 0 and "best so far" in done.stderr
    story = json.loads((tmp_path / "so-far.keras.json").read_text())
    # Right for three of the four test examples.
    assert story["test"]["accuracy"] == 0.75
    assert str(book.run.folder.resolve() / "study.py") in story["command"]
    # Its command names the points to start from, too.
    assert story["start"] == [{"rate": 0.25}]
    assert "--start start.json" in story["command"]


OWN_LAYER = KERAS.replace(
    "    model = keras",
    "    @REGISTER\n    class Own(keras.layers.Dense):\n        pass\n    model = keras",
).replace("keras.layers.Dense(2", "Own(2")


def test_a_layer_of_the_studys_own_must_be_registered(tmp_path: pathlib.Path) -> None:
    for name, decorator, status in (
        ("unknown", "", 2),
        ("known", "@keras.saving.register_keras_serializable()", 0),
    ):
        folder = tmp_path / name
        folder.mkdir()
        text = OWN_LAYER.replace("    @REGISTER\n", f"    {decorator}\n")
        book = book_of(folder, text, layer="own")
        book.close()
        out = folder / "best.keras"
        if status:
            assert "register_keras_serializable" in refused(book.run, out)
        else:
            assert export(book.run, out).returncode == 0


# --- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("best.h5", "ends in .keras"),
        ("best", "ends in .keras"),
        (".keras", "ends in .keras"),
        ("nowhere/best.keras", "no folder"),
        ("file/best.keras", "no folder"),
        ("a" * 300 + ".keras", "File name too long"),
        ("there.keras", "there.keras is already there"),
        ("beside.keras", "beside.keras.json is already there"),
    ],
)
def test_a_name_that_cannot_be(run: Run, tmp_path: pathlib.Path, name: str, said: str) -> None:
    for taken in ("file", "there.keras", "beside.keras.json"):
        (tmp_path / taken).write_text("mine")
    assert said in refused(run, tmp_path / name)
    assert (tmp_path / "there.keras").read_text() == "mine"


def test_what_was_typed(run: Run, tmp_path: pathlib.Path) -> None:
    runs = ("--runs", str(run.folder.parent))
    for arguments, said in (
        (("digits-3",), "--out"),
        (("digits-4", "--out", str(tmp_path / "best.keras")), "did you mean 'digits-3'?"),
    ):
        done = launch("export", *arguments, *runs)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_completed_trial(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "young", form=Form.KERAS)
    book.report(book.start(0), [0.5])
    book.close()
    assert "no completed trial" in refused(book.run, tmp_path / "best.keras")


def test_a_function_has_no_model(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "function")
    book.end(book.report(book.start(0), [0.5]))
    book.close()
    assert "makes no model" in refused(book.run, tmp_path / "best.keras")


def test_weights_that_were_not_kept(run: Run, tmp_path: pathlib.Path) -> None:
    copy = Run(pathlib.Path(shutil.copytree(run.folder, tmp_path / "runs" / run.id)))
    for path in copy.weights.iterdir():
        path.unlink()
    line = refused(copy, tmp_path / "best.keras")
    assert "were not kept" in line and "launch.py run digits" in line


def test_a_model_that_cannot_be_made_leaves_nothing(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keras.py").write_text("raise ImportError('no Keras here')\n")
    (tmp_path / "out").mkdir()
    options = {"env": {"PYTHONPATH": str(tmp_path / "elsewhere")}}
    assert "no Keras here" in refused(run, tmp_path / "out" / "best.keras", **options)


@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_export_that_is_ended_leaves_nothing(
    run: Run, tmp_path: pathlib.Path, end: signal.Signals, status: int
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    shutil.copytree(run.folder, runs / run.id)
    out.mkdir()
    arguments = ("export", run.id, "--out", str(out / "best.keras"))
    export = LiveRun(runs, run.id, *arguments)
    try:
        wait_until(lambda: list(out.iterdir()), "the private folder")
        export.process.send_signal(end)
        assert export.wait()[0] == status
        assert list(out.iterdir()) == []
        assert_nothing_left(runs)
    finally:
        export.end()


def test_a_disk_that_is_full_or_read_only(run: Run, small_disk: pathlib.Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as file:
        file.write(bytes(4_000_000))
    line = refused(run, small_disk / "best.keras", status=3)
    assert f"cannot write {small_disk / 'best.keras'}: No space left" in line
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "cannot be written" in refused(run, small_disk / "best.keras")

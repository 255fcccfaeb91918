"""The command itself, as a user's shell runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from semivox.api.arguments import class_values
from semivox.cli.app import app
from semivox.cli.options import number, seconds
from semivox.errors import UserError, explained
from semivox.methods import METHODS
from shell import passes
from shell import run as inside

COMMANDS = (
    "import", "fetch", "info", "check", "plan", "prepare", "train", "predict", "evaluate", "report", "rank",
    "demo", "benchmark", "methods",
)  # fmt: skip
HEAVY = (
    *("torch", "monai", "lightning", "numpy", "scipy", "pandas", "matplotlib", "nibabel", "SimpleITK"),
    *("h5py", "blosc2", "pydicom", "highdicom", "tensorboard", "safetensors"),
)
ANSWERED_AT_ONCE = [
    ["--help"],
    *(["methods", *more] for more in ([], ["dual"], ["--cite", "dual"], ["--json"], ["dual", "--json"])),
    *([name, "--help"] for name in COMMANDS),
    ["export", "dicom-seg", "--help"],
]


def semivox(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return python("-m", "semivox", *arguments, **options)


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)


def test_an_answer_that_needs_no_scan_imports_nothing_heavy() -> None:
    """All of them in one process: what one imports stays imported."""
    script = (
        "import contextlib, io, sys\n"
        "from semivox.cli.app import app\n"
        f"for command in {ANSWERED_AT_ONCE!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as shown:\n"
        "        app(command, standalone_mode=False)\n"
        "    shown = shown.getvalue()\n"
        "    assert len(shown) > 200 and ('Usage' in shown) == ('--help' in command), (command, shown)\n"
        f"    heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "    assert not heavy, (command, heavy)\n"
        "    if command in (['--help'], ['methods']):\n"
        "        assert 'semivox.settings' not in sys.modules, command\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


def test_methods() -> None:
    shown = inside("methods").stdout
    assert all(name in shown for name in METHODS)
    one = inside("methods", "dual").stdout
    assert "2 labeled, 2 unlabeled" in one
    assert shlex.split(one.partition("Set one: ")[2]) == ["--set", "method.options.nets=[resnet34, vnet]"]
    for more in ((), ("dual",)):
        options = json.loads(inside("methods", *more, "--json").stdout)["dual"]["options"]
        assert {option["name"] for option in options} >= {"tau", "alpha"}
    assert inside("methods", "--cite", "dual").stdout.startswith("@article{lu2025dual,\n")
    for useless in ("bcp", "--json"):
        assert f"leave out {useless}" in str(inside("methods", useless, "--cite", "dual").exception)


def test_a_missing_folder_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    done = semivox("train", "-d", tmp_path / "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    debug = semivox("--debug", "train", "-d", tmp_path / "nowhere", cwd=tmp_path)
    assert debug.returncode != 0 and "Traceback" in debug.stderr


REFUSED = [
    ("train --set train.iteratons=5", "did you mean iterations"),
    ("train --set method=dual --set method.name=bcp", "--set method.name=dual"),
    ("train --iterations 5 --set train.iterations=6", "Two values for train.iterations"),
    ("train --method duall", "did you mean dual"),
    ("train --method dual --set method.options.tua=1", "did you mean tau"),
    ("train --set method.options.tau=true", "tau"),
    ("train --preset lit", "did you mean lite"),
    ("train --preset ''", "Unknown preset"),
    ("train --method ''", "Unknown method"),
    ("train --config ''", "cannot be read"),
    ("prepare --preset lit", "did you mean lite"),
    ("prepare --set method.name=duall", "did you mean dual"),
    ("train --device tpu", "train.device"),
    ("train --precision 64", "--precision"),
    ("train --seed -1", "train.seed"),
    ("train --budget soon", "Unknown time"),
    ("train --split-file none.json", "no such split file"),
    ("train --fold 5", "from 0 to 4"),
    ("train --fold 1 --val 2", "leave out split.val"),
    ("plan --labeled 1.0", "cases from 1 on"),
    ("plan --labeled some", "between 0 and 1, or all"),
    ("plan --val -1", "split.val"),
    ("plan --split-seed -1", "split.seed"),
    ("prepare --workers -1", "workers"),
    ("check --workers -1", "workers"),
    ("info --workers -1", "workers"),
    ("info --labeled 0.5.1", "cases from 1 on"),
    ("info --device cpu", "leave out --device"),
    ("benchmark -o out -m dual -l inf --dry-run", "cases from 1 on"),
    ("benchmark -o out -m duall --dry-run", "did you mean dual"),
    ("benchmark -o out -m dual --seeds 0 --dry-run", "seeds"),
    ("benchmark -o out -m dual --max-hours -1", "max_hours"),
    ("benchmark -o out -m dual --preset lit", "did you mean lite"),
    ("benchmark -o out -m dual --set train.lr=x", "train.lr"),
    ("benchmark -o out -g list.yaml --dry-run", "list.yaml"),
    ("benchmark -o out --ablation tua", "did you mean tau"),
    ("evaluate -i . --nsd-tolerance-mm -1", "nsd_tolerance_mm"),
    ("evaluate -i . --region core", "region"),
    ("train -c list.yaml", "list.yaml"),
    ("train -c text.yaml", "text.yaml"),
]


@pytest.mark.parametrize(("line", "named"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_means_nothing_is_refused_by_name_before_a_scan_is_opened(
    line: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set is empty, so opening it would be another message."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "text.yaml").write_text("just text\n")
    command, *rest = shlex.split(line)
    done = inside(command, "-d", tmp_path, *rest)
    said = str(done.exception) + done.output
    assert named in " ".join(re.sub(r"[│\n]", " ", said).split()), said
    assert isinstance(done.exception, (UserError, SystemExit)) and not (tmp_path / "out").exists()


def test_all_labels_also_with_a_preset_that_takes_some(phantoms: Path, tmp_path: Path) -> None:
    made = ("plan", "-d", phantoms, "--work", tmp_path / "work", "--preset", "phantoms-lite", "--labeled")
    for given, count in ((2, 2), ("all", 6)):
        text = passes(*made, given)
        assert f"{count} labeled, {6 - count} unlabeled" in text
        assert f"--labeled {given}" in text


def test_from_import_to_scores(phantoms: Path, tmp_path: Path) -> None:
    """Each command, typed as the one before suggests; `next:` lines can be pasted, also with spaces."""
    work, run, out = tmp_path / "my work", tmp_path / "run", tmp_path / "out"
    narrow = ("--set", "net.width=2", "--set", "train.workers=0", "--set", "plan.patch=[16,16,16]")
    imported = passes("import", phantoms, "-o", work)
    assert "6 training cases (6 with a label file)" in imported
    assert _next(imported) == ["semivox", "prepare", "-d", str(work)]
    prepared = passes("prepare", "-d", work, "--labeled", 2, "--workers", 0, *narrow)
    train = _next(prepared)
    assert train[:4] == ["semivox", "train", "-d", str(work)] and "--labeled" in train
    trained = passes(*train[1:], "-o", run, "--iterations", 2, "--device", "cpu")
    assert _next(trained)[:4] == ["semivox", "predict", "-m", str(run)]
    scans = ("-i", phantoms / "imagesTs")
    passes("predict", "-m", run, *scans, "-o", out, "--save-probabilities", "--no-postprocess")
    assert len(list(out.glob("*.npz"))) == 2
    scored = ("evaluate", "-i", out, "-d", phantoms, "--workers", 0)
    early = inside(*scored, "-o", tmp_path / "never", "--report", tmp_path / "nowhere")
    assert "no trained run" in str(early.exception)
    assert not (tmp_path / "never").exists()
    assert "Dice" in passes(*scored, "--region", "all=1,2", "--report", run)
    assert (out / "report.html").is_file() and "all" in (out / "metrics.csv").read_text()
    narrow_terminal = inside(*scored, COLUMNS="40").stdout
    assert {"Dice", "95HD (mm)", "NSD"} <= set(re.findall(r"Dice|95HD \(mm\)|NSD", narrow_terminal))
    assert "body" in narrow_terminal and "veins" in narrow_terminal
    again = inside("predict", "-m", run, *scans, "-o", out, "--overlap", 0.25)
    assert "--overwrite" in str(again.exception)
    alone = inside("predict", "-m", run, *scans, "-o", tmp_path / "d", "--as-dataset", "--save-members")
    assert "leave out --save-members" in str(alone.exception)
    passes("predict", "-m", run, "-i", work, "-o", tmp_path / "d", "--as-dataset", "--overlap", 0.25)
    assert len(list((tmp_path / "d" / "labelsTr").iterdir())) == 6
    ranked = passes("rank", "-m", run, "-d", work, "-o", tmp_path / "rank", "--by", "uncertainty")
    assert "4 scans in" in ranked and "--init" in _next(ranked)


@pytest.mark.parametrize("option", ["--model", "--input", "--images"])
def test_a_comparison_refuses_what_is_for_one_run(option: str, tmp_path: Path) -> None:
    found = inside("report", "--compare", tmp_path, option, tmp_path)
    assert f"leave out {option}" in str(found.exception)


def _next(output: str) -> list[str]:
    (line,) = re.findall(r"^next: (.*)$", output, flags=re.MULTILINE)
    return shlex.split(line, comments=True)


def test_info_and_check_speak_json_and_exit_codes(phantoms: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return inside(*arguments, "--workers", 0)

    folder = Path(shutil.copytree(phantoms, tmp_path / "data"))
    found = json.loads(run("info", "-d", folder, "--json", "--labeled", 2).stdout)
    assert len(found["cases"]) == 6 and len(found["summary"]["labeled_cases"]) == 2
    shown = run("info", "-d", folder, "--figure", tmp_path / "a.png")
    assert shown.exit_code == 0 and (tmp_path / "a.png").is_file()
    assert "class volumes in mL, 6 labeled cases" in shown.stdout
    sound = run("check", "-d", folder)
    assert sound.exit_code == 0
    assert "8 cases, 0 errors" in sound.stdout and "next: semivox prepare" in sound.stdout
    typed = "--labeled 2 --trust-image-geometry"
    for verb, following in (("info", "check"), ("check", "prepare")):
        text = run(verb, "-d", folder, *typed.split()).stdout
        assert text.splitlines()[-1] == f"next: semivox {following} -d {folder} {typed}"
    broken = next((folder / "imagesTr").iterdir())
    broken.write_bytes(broken.read_bytes()[:-9])
    as_json = run("check", "-d", folder, "--json")
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["errors"] == 1
    bad = run("check", "-d", folder)
    assert bad.exit_code == 1
    assert broken.name in bad.stdout and "1 error" in bad.stdout


@pytest.mark.parametrize("command", ["train", "prepare", "evaluate", "import", "info"])
def test_an_output_below_a_file_is_a_message(
    command: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    arguments: dict[str, tuple[object, ...]] = {
        "train": ("-d", phantoms, "--work", file / "w", "-m", "supervised"),
        "prepare": ("-d", phantoms, "--work", file, "--workers", 0),
        "evaluate": ("-i", phantoms / "labelsTs", "-d", phantoms, "-o", file / "sub", "--workers", 0),
        "import": (phantoms, "-o", file),
        "info": ("-d", phantoms, "--workers", 0, "--figure", file / "x.png"),
    }
    error = inside(command, *arguments[command]).exception
    assert error is not None and explained(error) is not None, error


def test_names_that_no_text_can_hold_are_messages(tmp_path: Path) -> None:
    for name in (b"\xff\xfe", b"n" * 300):
        path = os.fsdecode(bytes(tmp_path) + b"/" + name)
        for words in (("check", "-d", path), ("import", path, "-o", tmp_path / "out")):
            error = inside(*words).exception
            assert error is not None and explained(error) is not None, error
    done = semivox("check", "-d", os.fsdecode(bytes(tmp_path) + b"/\xff\xfe"), cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("words", [("--work", ""), ("--work=",)])
def test_an_empty_word_is_not_the_current_folder(words: tuple[str, ...], tmp_path: Path) -> None:
    done = semivox("prepare", "-d", str(tmp_path), *words, cwd=tmp_path)
    assert done.returncode == 2 and "command line is empty" in done.stderr and not any(tmp_path.iterdir())


def test_this_machine_has_no_data_set() -> None:
    with pytest.raises(UserError, match="leave out --labeled"):
        passes("info", "--machine", "--labeled", "2")


def test_a_bug_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    script = (
        "import sys, semivox.cli, semivox.methods.catalogue as rooms\n"
        "rooms.list_methods = lambda: 1 / 0\n"
        "sys.argv = ['semivox', *sys.argv[1:]]\n"
        "semivox.cli.main()\n"
    )
    done = python("-c", script, "methods")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "a bug in semivox: ZeroDivisionError" in done.stderr
    debug = python("-c", script, "--debug", "methods")
    assert debug.returncode == 1 and "Traceback" in debug.stderr


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(("number_", "code", "workers"), [(signal.SIGINT, 130, 0), (signal.SIGTERM, 143, 2)])
def test_a_signal_has_its_exit_code_and_says_how_to_resume(
    number_: signal.Signals, code: int, workers: int, phantoms: Path, tmp_path: Path
) -> None:
    """The command that is printed does not delete what there is: it lacks --fresh."""
    typed = ["prepare", "-d", str(phantoms), "--work", str(tmp_path / "w"), "--workers", str(workers)]
    process = subprocess.Popen(
        [sys.executable, "-m", "semivox", *typed, "--fresh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (tmp_path / "w" / "dataset.json").exists():
        time.sleep(0.01)
    process.send_signal(number_)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "run the same command again" in said and "Traceback" not in said, said
    assert shlex.split(said.splitlines()[-1]) == ["semivox", *typed]


@pytest.mark.usefixtures("unmeasured")
def test_a_signal_during_imports(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, semivox.cli\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "semivox.cli.main()\n"
    )
    done = python("-c", script)
    assert done.returncode == 143 and "Traceback" not in done.stderr, done.stderr


def test_a_signal_within_generated_code_has_its_exit_code(tmp_path: Path) -> None:
    """Such as the methods of a dataclass: Python remembers it, and ended by SIGINT."""
    code = "import semivox.cli.app as at\nat.app = lambda: exec('raise KeyboardInterrupt')\n"
    (tmp_path / "stopped.py").write_text(f"{code}from semivox.cli import main\nmain()\n")
    assert python("-m", "stopped", cwd=tmp_path).returncode == 130


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("20", 1200)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "0m", "-5m", "5d", "inf", "nan", "", "1e3m", "٣m", "99999999h"])
def test_bad_times(text: str) -> None:
    with pytest.raises(UserError, match="Unknown time"):
        seconds(text)


@pytest.mark.parametrize("text", ["organ", "organ=0", "=1", "organ=1.5", "organ=٣", "organ=1e3"])
def test_bad_classes(text: str) -> None:
    assert class_values(["a b=2", "c=-300"]) == {"a b": 2, "c": -300}
    for texts in ([text], ["organ=1", "organ=2"]):
        with pytest.raises(UserError, match="A class is malformed"):
            class_values(texts)


@pytest.mark.parametrize(("text", "value"), [("8", 8), ("0.1", 0.1), (" All", "all"), ("x", "x")])
def test_numbers(text: str, value: object) -> None:
    assert number(text) == value and type(number(text)) is type(value)


def test_what_was_typed_is_in_the_next_command(phantoms: Path, tmp_path: Path) -> None:
    given = "--labeled 2 --trust-image-geometry --preset phantoms-lite --set net.width=2 --set train.seed=8"
    text = passes("plan", "-d", phantoms, "--work", tmp_path / "work", *shlex.split(given))
    assert f"next: semivox prepare -d {tmp_path / 'work'} {given}   #" in text


def test_options_have_the_help_of_api_and_settings() -> None:
    """Once declared: a setting's description, a line of a docstring."""
    shown = " ".join(inside("train", "--help").stdout.replace("│", " ").split())
    assert "training cases, at the end of the list, to keep for validation" in shown
    assert "[auto|32|bf16|16]" in shown.replace("<", "[").replace(">", "]")
    assert "train a finished run for more iterations" in shown
    for command in COMMANDS:
        for option in typer.main.get_command(app).commands[command].params:  # type: ignore[attr-defined]
            assert option.help or option.name == "help", (command, option.name)
            assert not re.search(r"`|as for |semivox\.|\(default.*default", option.help or ""), option.help

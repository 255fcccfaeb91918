"""The guarded reader and the pool: what goes wrong in a process is one message, and the next call works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jobs
import nibabel as nib
import numpy as np
import pytest

from semivox.errors import UserError
from semivox.io import process, reader
from semivox.io.formats import bad_file, out_of_memory
from semivox.io.process import Process
from semivox.io.reader import check_memory, run_jobs
from semivox.io.volume import read_image

FILE = Path("scan.nii")


def run(names: list[str], workers: int) -> dict[str, str]:
    """Collect what the pool yields before it raises."""
    done: dict[str, str] = {}
    for job, result in run_jobs(jobs.work, names, workers, name=str, doing="testing"):
        done[job] = result
    return done


def test_arrays_come_back_whole_and_writable() -> None:
    array = np.random.default_rng(0).normal(size=(30, 40, 50))
    doubled, empty = jobs.numbers(FILE, np.asfortranarray(array))
    np.testing.assert_array_equal(doubled, array * 2)
    assert doubled.flags.writeable and empty.shape == (0, 40, 50)


def test_one_process_serves_all_calls_and_is_renewed_after_its_death() -> None:
    first = jobs.process_id(FILE)
    assert first == jobs.process_id(FILE) != os.getpid()
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert jobs.process_id(FILE) not in (first, os.getpid())


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("crash", "the process ended with SIGABRT"),
        ("hang", "no answer within 1 seconds"),
        ("large", "does not fit into this machine's memory"),
    ],
)
def test_the_file_that_ends_the_reader_is_named(
    monkeypatch: pytest.MonkeyPatch, job: str, message: str
) -> None:
    monkeypatch.setattr(reader, "READ_LIMIT_S", 1.0)
    with pytest.raises(UserError, match=message) as error:
        jobs.read(FILE, job=job)
    assert error.value.path == FILE and error.value.do
    assert jobs.read(FILE, job="next") == "next done"


def test_relative_paths_follow_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader was started elsewhere, as in a notebook that changes its folder."""
    for name, value in (("one", 1.0), ("two", 2.0)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        nib.save(nib.Nifti1Image(np.full((3, 4, 5), value, np.float32), np.eye(4)), "scan.nii")
        assert read_image([Path("scan.nii")]).array.max() == value


def test_errors_of_the_function_arrive_as_they_are() -> None:
    with pytest.raises(UserError, match="The file is bad") as error:
        jobs.read(FILE, job="bad")
    assert error.value.path == Path("bad.nii")
    with pytest.raises(ZeroDivisionError) as bug:
        jobs.read(FILE, job="bug")
    assert "in work" in "".join(bug.value.__notes__)  # where it happened in the other process


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_bad_file_does_not_stop_the_other_jobs(workers: int) -> None:
    done: dict[str, str] = {}
    with pytest.raises(UserError, match="The file is bad") as error:
        for job, result in run_jobs(jobs.work, ["a", "bad", "b", "c"], workers, name=str, doing="testing"):
            done[job] = result
    assert done == {name: f"{name} done" for name in "abc"}
    assert error.value.path == Path("bad.nii")
    with pytest.raises(UserError, match=r"2 of 4 cases failed \(testing\)") as error:
        run(["bad", "a", "large", "b"], workers)
    assert "bad: The file is bad: nothing (bad.nii)" in str(error.value.found)
    assert "large: The scan does not fit" in str(error.value.found)
    assert error.value.do == "repair or remove these files"
    with pytest.raises(UserError, match="2 of 3 cases failed") as error:
        run(["bad", "a", "bad "], workers)
    assert error.value.do == "for each: replace this file", "the advice that all have in common"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_costs_only_its_case(workers: int) -> None:
    done: dict[str, str] = {}
    with pytest.raises(UserError, match="A worker process died while testing crash") as error:
        for job, result in run_jobs(jobs.work, ["a", "crash", "b", "c"], workers, name=str, doing="testing"):
            done[job] = result
    assert set(done) == {"a", "b", "c"}
    assert "SIGABRT" in str(error.value.found)


def test_a_worker_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CASE_LIMIT_S", 0.5)
    monkeypatch.setattr(reader, "_LOOK_S", 0.1)
    with pytest.raises(UserError, match="died while testing hang"):
        run(["a", "hang", "b"], 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bug_is_raised_at_once(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        run(["bug", "a"], workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_a_process_has_started(number: signal.Signals) -> None:
    """Also where another thread takes it."""
    seen: list[tuple[int, bool]] = []
    stop, started = threading.Event(), False
    before = signal.signal(number, lambda got, _: seen.append((got, started)))
    threading.Thread(target=stop.wait).start()
    try:
        with process._uninterrupted():
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            started = True
    finally:
        stop.set()
        signal.signal(number, before)
    assert seen == [(number, True)]


def test_no_jobs() -> None:
    assert run([], 0) == run([], 2) == {}


def test_a_process_may_run_without_limits_and_start_others() -> None:
    free = Process("jobs")
    free.send(jobs.process_id, FILE)
    inner = free.receive(30)
    assert inner not in (os.getpid(), jobs.process_id(FILE))
    free.close()
    assert not free.is_alive


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_reads_after_its_parent_has() -> None:
    """As a worker of `multiprocessing` does; it cannot use the fork server of its parent."""
    script = (
        "import multiprocessing, os, pathlib, jobs\n"
        "file = pathlib.Path('scan.nii')\n"
        "first = jobs.process_id(file)\n"
        "def read(): assert jobs.process_id(file) not in (first, os.getpid())\n"
        "child = multiprocessing.get_context('fork').Process(target=read)\n"
        "child.start(), child.join()\n"
        "assert child.exitcode == 0"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nprint('script starts')\n"
        "import jobs\nfrom pathlib import Path\nfrom semivox.io.reader import run_jobs\n"
        "print(jobs.read(Path('scan'), job='a'))\n"
        "print(len(list(run_jobs(jobs.work, ['a', 'b', 'c'], 2, name=str, doing='testing'))))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=100)
    assert (done.stdout.split("\n")[:3], done.stderr) == (["script starts", "a done", "3"], "")


def test_no_process_outlives_a_killed_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import jobs\nfrom pathlib import Path\nprint(jobs.process_id(Path('scan')), flush=True)\n"
        "jobs.read(Path('scan'), job='hang')\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        inner = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _is_running(inner):
        time.sleep(0.1)
    assert not _is_running(inner)


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False


def test_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reader.machine_memory()
    (tmp_path / "limit").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(reader, "_CGROUP_LIMITS", (tmp_path / "none", tmp_path / "absent"))
    assert reader.machine_memory() == whole or whole is None
    monkeypatch.setattr(reader, "_CGROUP_LIMITS", (tmp_path / "none", tmp_path / "limit"))
    assert reader.machine_memory() == 1000000
    check_memory((10, 10, 100), 96)
    with pytest.raises(UserError, match="10 x 10 x 100 voxels of 97 bytes"):
        check_memory((10, 10, 100), 97)


def test_what_counts_as_too_little_memory() -> None:
    texts = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "Failed to allocate memory")
    assert all(out_of_memory(RuntimeError(text)) for text in texts)
    assert out_of_memory(MemoryError()) and not out_of_memory(RuntimeError("shape mismatch"))
    assert bad_file(FILE, "a", "b", "c").path == FILE

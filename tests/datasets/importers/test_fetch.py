"""`fetch` from a mirror, and from a server of this machine."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nibabel as nib
import numpy as np
import pytest

from semivox.datasets.dataset import open_dataset
from semivox.datasets.importers import fetch
from semivox.datasets.importers.fetch import fetch_task, find_task, tasks
from semivox.errors import UserError

TASK = "Task04_Hippocampus"


def archive(folder: Path, names: dict[str, bytes] | None = None) -> Path:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)).to_bytes()
    meta = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior"},
        "training": [{"image": "./imagesTr/a.nii", "label": "./labelsTr/a.nii"}],
        "test": [],
    }
    content = {
        f"{TASK}/dataset.json": json.dumps(meta).encode(),
        f"{TASK}/imagesTr/a.nii": image,
        f"{TASK}/labelsTr/a.nii": image,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{TASK}.tar", "w") as stream:
        for name, data in (content if names is None else names).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            stream.addfile(info, io.BytesIO(data))
    return folder / f"{TASK}.tar"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch):
    """Make an archive's checksum the published one."""

    def trust(path: Path, url: str = "https://example.org/x.tar") -> None:
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setattr(fetch, "tasks", lambda: {**tasks(), TASK: (url, md5)})

    return trust


def test_checksums_are_monais() -> None:
    from monai.apps.datasets import DecathlonDataset

    known = tasks()
    assert len(known) == 10
    assert known[TASK] == (DecathlonDataset.resource[TASK], DecathlonDataset.md5[TASK])
    assert len(known[TASK][1]) == 32


@pytest.mark.parametrize("name", [TASK, "hippocampus", "Hippocampus", "task04", "4", "04"])
def test_names(name: str) -> None:
    assert find_task(name, tasks()) == TASK


@pytest.mark.parametrize("name", ["", "brain", "11", "Task4_Hippo"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UserError, match="Unknown data set") as error:
        find_task(name, tasks())
    assert TASK in str(error.value.expected)


def test_from_a_mirror(tmp_path: Path, known) -> None:
    known(archive(tmp_path / "mirror" / "deep"))
    folder = fetch_task("hippocampus", tmp_path / "out", mirror=tmp_path / "mirror")
    assert folder == tmp_path / "out" / TASK
    dataset = open_dataset(folder)
    assert [case.name for case in dataset.cases] == ["a"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TASK]
    (tmp_path / "mirror" / "deep" / f"{TASK}.tar").unlink()
    assert fetch_task("hippocampus", tmp_path / "out", mirror=tmp_path / "mirror") == folder


@pytest.mark.parametrize(("trusted", "size"), [(False, None), (True, 700)])
def test_another_checksum_and_a_truncated_archive(
    tmp_path: Path, known, trusted: bool, size: int | None
) -> None:
    path = archive(tmp_path / "mirror")
    path.write_bytes(path.read_bytes()[:size])
    if trusted:
        known(path)
    with pytest.raises(UserError, match="damaged or another version") as error:
        fetch_task(TASK, tmp_path / "out", mirror=tmp_path / "mirror")
    assert error.value.path == path
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(UserError, match="not in the mirror") as error:
        fetch_task(TASK, tmp_path / "out", mirror=tmp_path / "nowhere")
    assert error.value.expected == f"{TASK}.tar"


@pytest.mark.parametrize("name", ["../outside.txt", f"{TASK}/../../outside.txt", "other/dataset.json"])
def test_archives_that_hold_something_else(tmp_path: Path, known, name: str) -> None:
    known(archive(tmp_path / "mirror", {name: b"{}"}))
    with pytest.raises(UserError, match="damaged or another"):
        fetch_task(TASK, tmp_path / "out", mirror=tmp_path / "mirror")
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "outside.txt").exists()


def test_a_full_disk_is_no_damaged_archive(tmp_path: Path, known, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    known(archive(tmp_path / "mirror"))
    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(UserError, match="The disk is full"):
        fetch_task(TASK, tmp_path / "out", mirror=tmp_path / "mirror")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path):
    """Address of a server for the files of `tmp_path/served`."""
    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_real_download(tmp_path: Path, known, served: str) -> None:
    known(archive(tmp_path / "served"), f"{served}/{TASK}.tar")
    folder = fetch_task("hippocampus", tmp_path / "out")
    assert [case.name for case in open_dataset(folder).cases] == ["a"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TASK], "the archive is deleted"


def test_a_download_that_is_cut_or_absent(tmp_path: Path, known, served: str) -> None:
    whole = archive(tmp_path / "whole")
    known(whole, f"{served}/{TASK}.tar")
    with pytest.raises(UserError, match="download failed"):  # 404
        fetch_task(TASK, tmp_path / "out")
    (tmp_path / "served" / f"{TASK}.tar").write_bytes(whole.read_bytes()[:-512])
    with pytest.raises(UserError, match="download failed"):  # another checksum
        fetch_task(TASK, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.apps import utils

    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "download_url", fail)
    with pytest.raises(UserError, match="download failed") as error:
        fetch_task(TASK, tmp_path / "out")
    assert "no route to host" in str(error.value.found) and "--from" in str(error.value.do)

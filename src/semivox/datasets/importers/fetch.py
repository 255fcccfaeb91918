"""Data sets of the Medical Segmentation Decathlon: downloaded or taken from a mirror, verified, unpacked.

Addresses and checksums are those that MONAI ships; nothing is fetched unless `fetch_task` is called.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from semivox.errors import UserError, shortened


def tasks() -> dict[str, tuple[str, str]]:
    """Return address and MD5 checksum of each task's archive, as MONAI has them."""
    from monai.apps.datasets import DecathlonDataset

    return {name: (url, DecathlonDataset.md5[name]) for name, url in DecathlonDataset.resource.items()}


def find_task(name: str, known: dict[str, Any]) -> str:
    """Return the full name for `Task04_Hippocampus`, `hippocampus`, `task04` or `4`."""
    wanted = name.strip().lower()
    number = re.fullmatch(r"(?:task)?0*(\d+)", wanted)
    fitting = [
        task
        for task in known
        if wanted in (task.lower(), task.lower().partition("_")[2])
        or (number and task.lower().startswith(f"task{int(number[1]):02d}_"))
    ]
    if len(fitting) != 1:
        do = "name one of these, e.g. semivox fetch hippocampus DATA"
        raise UserError("Unknown data set", name, ", ".join(known), do)
    return fitting[0]


def fetch_task(name: str, out: Path, *, mirror: Path | None = None) -> Path:
    """Unpack a task's archive into `out`/TaskNN_Name, a folder in MSD layout; one that is there stays.

    The archive, `TaskNN_Name.tar`, is in the folder `mirror`; None: it is downloaded and then deleted.
    """
    known = tasks()
    task = find_task(name, known)
    url, md5 = known[task]
    folder = out / task
    if (folder / "dataset.json").is_file():
        return folder
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=out) as temporary:
        archive = _download(url, md5, Path(temporary)) if mirror is None else _archive(task, md5, mirror)
        _unpack(archive, Path(temporary) / "unpacked", task).rename(folder)
    return folder


def _archive(task: str, md5: str, mirror: Path) -> Path:
    from monai.apps.utils import check_hash

    found = next((path for path in sorted(mirror.rglob(f"{task}.tar")) if path.is_file()), None)
    if found is None:
        there = shortened(sorted(path.name for path in mirror.glob("*")), 5) or "nothing"
        do = "check the folder after --from"
        raise UserError("The archive is not in the mirror", there, f"{task}.tar", do, mirror)
    if not check_hash(found, md5, "md5"):
        what, do = "The archive is damaged or another version", "copy or download it again"
        raise UserError(what, "another MD5 checksum", md5, do, found)
    return found


def _download(url: str, md5: str, folder: Path) -> Path:
    from monai.apps.utils import download_url

    archive = folder / url.rpartition("/")[2]
    try:
        download_url(url, archive, hash_val=md5, hash_type="md5")
        if not archive.is_file():
            raise OSError("no file arrived")
    except (OSError, RuntimeError, ValueError) as error:  # MONAI's HashCheckError is a ValueError
        found = f"{' '.join(str(error).split())[:300]} ({url})"
        do = "try again, or get the archive elsewhere and use --from FOLDER"
        raise UserError("The download failed", found, None, do) from error
    return archive


def _unpack(archive: Path, folder: Path, task: str) -> Path:
    """Unpack to `folder`, and return the folder of the task in it."""
    try:
        with tarfile.open(archive) as stream:
            stream.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        what, do = "The archive cannot be unpacked", "free some disk space, or copy or download it again"
        raise UserError(what, error, "a whole tar file with plain files inside", do, archive) from error
    if not (folder / task / "dataset.json").is_file():
        what, found = "The archive does not hold the data set", sorted(path.name for path in folder.iterdir())
        raise UserError(what, shortened(found, 5), f"{task}/dataset.json", "download it again", archive)
    return folder / task

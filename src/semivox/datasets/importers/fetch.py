"""Get data sets of the Medical Segmentation Decathlon: downloaded or from a mirror, verified, unpacked.

Addresses and checksums are those that MONAI ships; nothing is fetched unless `fetch_task` is called.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from semivox.errors import UserError, explained, shortened, unknown


def tasks() -> dict[str, tuple[str, str]]:
    """Return address and MD5 checksum of each task's archive, as MONAI has them."""
    from monai.apps.datasets import DecathlonDataset

    return {name: (url, DecathlonDataset.md5[name]) for name, url in DecathlonDataset.resource.items()}


def find_task(name: str, known: Iterable[str]) -> str:
    """Return the full name for `Task04_Hippocampus`, `hippocampus`, `task04` or `4`."""
    wanted = name.strip().lower().removeprefix("task")
    for task in known:
        number, organ = task.lower().removeprefix("task").split("_")
        if wanted in (organ, number, number.lstrip("0"), f"{number}_{organ}"):
            return task
    raise unknown("data set", name, known)


def fetch_task(name: str, out: Path, *, mirror: Path | None = None) -> Path:
    """Unpack a task's archive into `out`/TaskNN_Name, a folder in MSD layout; one that is there stays.

    The archive, `TaskNN_Name.tar`, is in the folder `mirror`; None: it is downloaded and then deleted.
    """
    from monai.apps import utils

    known = tasks()
    task = find_task(name, known)
    (url, md5), folder = known[task], out / task
    if (folder / "dataset.json").is_file():
        return folder
    file = f"{task}.tar"
    stored = sorted(mirror.rglob(file)) if mirror is not None else []
    if mirror is not None and not stored:
        there = shortened(sorted(path.name for path in mirror.glob("*")), 5) or "nothing"
        do = "check the folder after --from"
        raise UserError("The archive is not in the mirror", there, file, do, mirror)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=out) as temporary:
        archive = stored[0] if stored else Path(temporary, file)
        try:
            utils.download_url(url, archive, hash_val=md5, hash_type="md5")  # of one that is there: the check
            with tarfile.open(archive) as stream:
                stream.extractall(temporary, filter="data")
            return Path(temporary, task).rename(folder)
        except (tarfile.TarError, EOFError, OSError, RuntimeError, ValueError) as error:
            if not isinstance(error, FileNotFoundError) and (full := explained(error)):
                raise full from error
            what = "The download failed" if mirror is None else "The archive is damaged or another version"
            text = f"{' '.join(str(error).split())[:300]} ({url})"
            do = "try again, or get the archive elsewhere and use --from FOLDER"
            raise UserError(what, text, f"a tar file with MD5 {md5}", do, mirror and archive) from error

"""Folders listed: files of scans by their endings, files that are not used, names that cannot be used.

Every file in the image and label folders is used, or named in an error or a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from os.path import normpath
from pathlib import Path
from typing import Literal

from semivox.errors import UserError, shortened
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS

Pool = Literal["train", "test", "extra"]

FOLDERS: tuple[tuple[Pool, str, str], ...] = (
    ("train", "imagesTr", "labelsTr"),
    ("test", "imagesTs", "labelsTs"),
    ("extra", "imagesUn", ""),
)
_LONGEST = 200  # bytes of a case's name: outputs add a channel, an ending and a temporary prefix
_SIMILAR = 0.85


class Notice(UserError):  # noqa: N818
    """A warning in the form of an error: something to tell that stops nothing."""


def data_files(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """List scans as stem, path and ending, sorted; hidden files (macOS's `._NAME`) are left out."""
    for name in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
        ending = next((end for end in (*NIFTI_ENDINGS, *ITK_ENDINGS) if name.lower().endswith(end)), None)
        if ending is not None and not name.startswith("."):
            yield name[: -len(ending)], folder / name, ending


def list_files(folder: Path, ending: str | None, problems: list[UserError]) -> dict[str, Path]:
    """Return the files by name without ending; another than the declared `ending` is a problem.

    Where none is declared, any NIfTI ending will do, in capitals too.
    """
    found: dict[str, Path] = {}
    for stem, path, its in data_files(folder):
        if not (path.name.endswith(ending) if ending else its in NIFTI_ENDINGS):
            what, expected = "A file has another ending than declared", ending or "a NIfTI ending"
            do = "rename or convert it; without file_ending in dataset.json, .nii and .nii.gz are both read"
            problems.append(UserError(what, path.name, expected, do, path))
        elif not path.is_file():
            what, do = "A scan is a folder, or a link to a file that does not exist", "restore or remove it"
            problems.append(UserError(what, path.name, "a file", do, path))
        elif stem in found:
            what, files = "Two files differ in the ending alone", f"{found[stem].name} and {path.name}"
            problems.append(UserError(what, files, "one file", "remove one of them", path))
        else:
            found[stem] = path
    return found


def unused_files(root: Path, used: Iterable[Path]) -> Iterator[UserError]:
    """Name the files beside those of the cases; a folder that is misnamed is an error."""
    known = {normpath(path) for path in used}
    standard = [name for _, *names in FOLDERS for name in names if name]
    absent = [name for name in standard if not (root / name).is_dir()]
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        if folder.name in standard:
            unused = [path.name for path in folder.glob("[!.]*") if normpath(path) not in known]
            if unused:
                do = "remove them, or correct names or dataset.json"
                found = shortened(sorted(unused), 8)
                yield Notice("Files that the data set does not use", found, None, do, folder)
            continue
        likeness = {name: SequenceMatcher(None, folder.name, name).ratio() for name in absent}
        near = max(likeness, key=likeness.__getitem__, default="")  # of equal ones the first: training
        files = [path for _, path, _ in data_files(folder)] if likeness.get(near, 0) >= _SIMILAR else []
        if files and not any(normpath(path) in known for path in files):
            what, found = "A folder of scans is not used", f"{folder.name}, which holds {files[0].name}"
            yield UserError(what, found, near, f"rename it to {near}, or move it away", folder)


def missing_image(case: str, path: Path, channel: str | None) -> UserError:
    """Return the error for an image file that is declared or implied but not there."""
    what = f"Case {case}: the image{f' of channel {channel}' if channel else ''} is missing"
    return UserError(what, "no such file", None, "add the file, or remove the case", path)


def name_problem(name: str) -> str | None:
    """Say why a case's name cannot become part of a file name; None if it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "bytes that are no UTF-8 text"
    if not name or "/" in name or name.startswith(".") or any(ord(letter) < 32 for letter in name):
        return "an empty name, a leading dot, / or a control character"
    return f"{size} bytes, at most {_LONGEST} leave room for endings" if size > _LONGEST else None


def name_errors(names: Sequence[str], path: Path) -> Iterator[UserError]:
    """Name cases whose name another one has, too, or that cannot become part of a file name."""
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        what, do = "Two cases have the same name", "rename the files of one of them"
        yield UserError(what, shortened(twice, 5), "names that are unique over all pools", do, path)
    for name in names:
        if (why := name_problem(name)) is not None:
            what = "A case has a name that cannot be a file name"
            yield UserError(what, f"{name}: {why}", None, "rename its files", path)


def printable(name: str) -> str:
    """Return a name that any terminal can show."""
    return name.encode("utf-8", "backslashreplace").decode()

"""The folder of predictions: files, what they mean, and who made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from semivox.datasets.case import name_problem
from semivox.errors import UserError
from semivox.files import read_json, replacing, signature, write_json
from semivox.inference.model import LoadedModel
from semivox.inference.predictor import Prediction
from semivox.inference.quality import FIGURES, Quality, flagged
from semivox.inference.sources import Scan
from semivox.io.formats import NIFTI_ENDINGS, stem
from semivox.io.volume import read_header, write_label, write_map
from semivox.version import __version__

DESCRIPTION = "semivox.json"
MANIFEST = "predict.json"
QUALITY = "quality.csv"
UNCERTAINTY, DISAGREEMENT = "_uncertainty.nii.gz", "_disagreement.nii.gz"


class OutputFolder:
    """Writes predictions of one model, and knows which of them exist already.

    Beside the model they depend on `settings`. `wanted` says what is written beside each segmentation, by a
    part of the files' names: ".npz" (CASE.npz), "/" (MEMBER/CASE.nii.gz), `UNCERTAINTY`, `DISAGREEMENT`.
    """

    def __init__(
        self, folder: Path, model: LoadedModel, settings: Mapping[str, Any], wanted: Sequence[str] = ()
    ) -> None:
        self.folder, self.plan, self.wanted = folder, model.plan, wanted
        self.method = model.meta["method"]["name"]
        self.maker = {"model": model.digest, "settings": dict(settings)}

    def label_file(self, scan: Scan) -> Path:
        """Return where the segmentation of a scan goes."""
        return self.folder / f"{scan.name}.nii.gz"

    def open(self, scans: Sequence[Scan], *, overwrite: bool) -> list[Scan]:
        """Check the folder, write the description, and return the scans that are still to be segmented.

        Raises:
            UserError: the folder is that of the scans, or holds predictions made by another model, with other
                settings or from another scan, and `overwrite` is off.
        """
        if self.folder.name.lower().endswith(NIFTI_ENDINGS) or self.folder.is_file():
            do = f"use --output {self.folder.parent}"
            raise UserError("The output is not a folder", "the name of a file", "a folder", do, self.folder)
        files, here = [file for scan in scans for file in scan.files], self.folder.resolve()
        # Also where a link points to: writing there would replace what it stands for.
        if any(here in (file.parent.resolve(), file.resolve().parent) for file in files):
            what, found = "The output folder is the folder of the scans", "scans, which would be replaced"
            do = f"use --output {self.folder.parent / 'predictions'}"
            raise UserError(what, found, "another folder", do, self.folder)
        listed = self._listed()
        todo = [scan for scan in scans if overwrite or not self._is_done(scan, listed.get(scan.name, {}))]
        self._describe(overwrite)
        return todo

    def write(self, scan: Scan, affine: NDArray[np.float64], found: Prediction) -> None:
        """Write the files of one scan; the label file comes last: where it is, all of them are.

        `affine` is the scan's; the rest of the header is kept where the scan is NIfTI.
        """
        nifti = scan.files[0].name.lower().endswith(NIFTI_ENDINGS)
        header, values = read_header(scan.files[0]) if nifti else None, self.plan.class_values
        self._clear(scan)
        files = [f"{name}/{scan.name}.nii.gz" for name in found.members]
        for file, member in zip(files, found.members.values(), strict=True):
            write_label(self.folder / file, member, values, affine, header)
        if found.probs is not None:
            files.append(f"{scan.name}.npz")
            with replacing(self.folder / files[-1]) as temporary:
                np.savez_compressed(temporary, probabilities=found.probs.astype(np.float16))
        for ending, shown in ((UNCERTAINTY, found.uncertainty), (DISAGREEMENT, found.disagreement)):
            if shown is not None:
                files.append(f"{scan.name}{ending}")
                write_map(self.folder / files[-1], shown, affine)
        self._list(scan, files, found.quality)
        write_label(self.label_file(scan), found.label, values, affine, header)

    def write_quality(self, flag_share: float) -> None:
        """Write `quality.csv`: a row for each scan segmented so far, those to look at first on top.

        Without a predicted Dice, `soft_dice` decides in its place.
        """
        listed = {case: entry["quality"] for case, entry in self._listed().items() if entry.get("quality")}
        if not listed:
            return
        orders, rows = [], []
        for case, found in listed.items():
            known = not pd.isna(found["dice"])
            orders.append(found["dice"] if known else found["figures"]["soft_dice"])
            low = "low predicted Dice" if known else FIGURES["soft_dice"]
            texts = "; ".join((*found.get("alarms", ()), *found["reasons"])) or low
            row = {"case": case, "predicted_dice": found["dice"], "low": found["low"], "high": found["high"]}
            rows.append(row | {"flag": "look", "reasons": texts, **found["figures"]})
        alarms = [bool(found.get("alarms")) for found in listed.values()]
        table = pd.DataFrame(rows).assign(order=orders)
        table.loc[~np.array(flagged(orders, alarms, flag_share)), ["flag", "reasons"]] = ""
        table = table.sort_values(["flag", "order"], ascending=[False, True]).drop(columns="order")
        with replacing(self.folder / QUALITY) as temporary:
            table.to_csv(temporary, index=False, float_format="%.4g")

    def _is_done(self, scan: Scan, entry: Mapping[str, Any]) -> bool:
        """Tell whether all files of a scan are there; entries of others are refused."""
        file = self.label_file(scan)
        if name_problem(scan.name) or not file.exists():
            return False
        made_by = self._maker_and_scan(scan)
        if differing := [key for key, value in made_by.items() if entry.get(key) != value]:
            another = {"model": "another model", "settings": "other settings", "scan": "another scan"}
            other = " and ".join(another[key] for key in differing)
            found = f"a file of {other}" if entry else f"a file that {MANIFEST} beside it does not list"
            raise self._foreign("The output exists already", found, file)
        files = entry["files"]
        asked = all(any(part in other for other in files) for part in self.wanted)
        return asked and all((self.folder / other).exists() for other in files)

    def _describe(self, overwrite: bool) -> None:
        """Write what the label values mean; one folder holds one model's predictions."""
        file = self.folder / DESCRIPTION
        description = {
            "semivox": __version__,
            "dataset": self.plan.dataset,
            "method": self.method,
            "channels": list(self.plan.channels),
            "labels": dict(zip(self.plan.class_names, self.plan.class_values, strict=True)),
            "model": self.maker["model"],
        }
        if self.plan.ignore_value is not None:
            description["ignore_value"] = self.plan.ignore_value
        if file.exists() and not overwrite and (known := read_json(file)).get("model") != self.maker["model"]:
            found = f"predictions of another model: data set {known.get('dataset')}, or other weights"
            raise self._foreign("The output folder holds predictions of another model", found, self.folder)
        write_json(file, description)

    def _foreign(self, what: str, found: str, path: Path) -> UserError:
        do = "choose another --output folder, or replace the files with --overwrite"
        expected = "an empty folder, or results of this model with these settings"
        return UserError(what, found, expected, do, path)

    def _clear(self, scan: Scan) -> None:
        """Remove the label file, and what else another model or other settings left of this scan."""
        self.label_file(scan).unlink(missing_ok=True)
        seg_beside(self.label_file(scan)).unlink(missing_ok=True)
        entry = self._listed().get(scan.name)
        if entry is not None and not self._maker_and_scan(scan).items() <= entry.items():
            for file in entry["files"]:
                (self.folder / file).unlink(missing_ok=True)

    def _maker_and_scan(self, scan: Scan) -> dict[str, Any]:
        content = "".join(signature(file)[-1] for file in scan.files)
        return {**self.maker, "scan": hashlib.sha256(content.encode()).hexdigest()}

    def _listed(self) -> dict[str, Any]:
        file = self.folder / MANIFEST
        return dict(read_json(file)["cases"]) if file.exists() else {}

    def _list(self, scan: Scan, files: Sequence[str], quality: Quality) -> None:
        """Add a scan to the manifest, read anew in case another process works on the same folder."""
        entry = {**self._maker_and_scan(scan), "files": list(files), "quality": quality._asdict()}
        cases = {**self._listed(), scan.name: entry}
        write_json(self.folder / MANIFEST, {"semivox": __version__, "cases": cases})


def seg_beside(label_file: Path) -> Path:
    """Return where a segmentation goes as DICOM-SEG."""
    return label_file.with_name(f"{stem(label_file)}.seg.dcm")


def doubtful(file: Path) -> list[tuple[str, str]]:
    """Return the scans that `quality.csv` of `semivox predict` says to look at first, and why."""
    if not file.is_file():
        return []
    table, found = pd.read_csv(file, keep_default_na=False, dtype=str), []
    for row in table[table["flag"] != ""].to_dict("records"):
        dice = f"predicted Dice {row['predicted_dice']}: " if row["predicted_dice"] else ""
        found.append((row["case"], dice + row["reasons"]))
    return found

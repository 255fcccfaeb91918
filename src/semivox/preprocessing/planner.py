"""Choose a plan from the scans, each entry with its reason; what the settings say is taken as it is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semivox.config import PlanConfig
from semivox.io.geometry import Triple
from semivox.preprocessing.fingerprint import Fingerprint, Intensity
from semivox.preprocessing.grids import (
    GridRow,
    compare_grids,
    feature_limit,
    median_spacing,
    strides_for,
    whole_patch,
)  # fmt: skip
from semivox.preprocessing.plan import DECLARED, FIGURES, Crop, Normalisation, Plan, checked_plan

if TYPE_CHECKING:
    from semivox.datasets.dataset import Dataset

_MR_WORD = re.compile(r"(ce)?t[12]\w*|mri?|flair|pd|dwi|adc|swi")
_HOUNSFIELD_AIR, _HOUNSFIELD_TISSUE = -900.0, (100.0, 5000.0)
_BACKGROUND_SHARE = 0.25
_ANISOTROPIC = 3.0
_SMALL_SHARE = 0.05  # of a scan: less surrounding than that hardly tells where in the body a patch is
_GIVEN = "Given in the settings."


def make_plan(dataset: Dataset, measured: Fingerprint, config: PlanConfig) -> Plan:
    """Choose working grid, crop, normalisation and patch, as `config` says or as the scans suggest."""
    reasons: dict[str, str] = {}
    crop, reasons["crop"] = _choose_crop(measured, config)
    normalisation, reasons["normalisation"] = _choose_normalisation(dataset.channels, measured, config)
    if measured.foreground is None and "ct" in normalisation:
        reasons["intensity"] = "Over whole scans, because the labels hold no foreground."
    network, why = _choose_network(measured, _extents_mm(measured, crop), config)
    reasons |= why
    if config.trust_image_geometry:
        reasons["trust_image_geometry"] = _GIVEN
    intensity = measured.foreground or measured.typical_intensity()
    return checked_plan(
        {
            "dataset": dataset.name,
            **{name: getattr(dataset, name) for name in DECLARED},
            **network,
            "normalisation": normalisation,
            "crop": crop,
            "trust_image_geometry": bool(config.trust_image_geometry),
            "memory_gb": config.memory_gb,
            "intensity": [{key: channel[key] for key in FIGURES} for channel in intensity],
            "one_piece": measured.one_piece(dataset.class_names[1:]),
            "fingerprint": measured.summary(),
            "reasons": reasons,
        }
    )


def _choose_network(
    measured: Fingerprint, extents_mm: NDArray[np.float64], config: PlanConfig
) -> tuple[dict[str, Any], dict[str, str]]:
    """Choose working grid, stem, strides and patch; return also the reasons."""
    limit, whose = feature_limit(config.memory_gb)
    rows = list[GridRow]()
    if config.spacing_mm is None and config.grid != "source":
        rows, best, wanted = compare_grids(measured, extents_mm, limit, config.fidelity)
    if rows:
        stem, gaps = config.stem or rows[best].stem, np.array(rows[best].spacing_mm)
        spacing = tuple(float(f"{side:.6g}") for side in gaps / stem)
        grids = tuple(row.as_dict(chosen=index == best) for index, row in enumerate(rows))
        network = {"grid": "measured", "fidelity": wanted, "grids": grids}
        why = _why_measured(rows, best, stem, wanted)
    else:
        stem, spacing = config.stem or (1, 1, 1), config.spacing_mm or median_spacing(measured)
        gaps = np.multiply(spacing, stem)
        network = {"grid": "given" if config.spacing_mm else "source"}
        why = _GIVEN if config.spacing_mm else _why_source(spacing, len(measured.cases))
    patch, strides, share = whole_patch(extents_mm / gaps, gaps, stem, limit)
    held = f"Holds {share:.0%} of a scan of median size; {whose} has room for {limit} features."
    if share < _SMALL_SHARE:
        held += " A coarser spacing_mm would show more of it at once."
    if config.patch is not None:
        patch, strides, held = config.patch, strides_for(config.patch, stem, gaps / stem), _GIVEN
    network |= {"spacing_mm": spacing, "stem": stem, "strides": strides, "patch": patch}
    return network, {"spacing_mm": why, "patch": held}


def _why_measured(rows: Sequence[GridRow], best: int, stem: Triple, wanted: float) -> str:
    which = f"of {len(rows)} grids the coarsest on which every class keeps a Dice of {wanted:g}"
    text = f"Features every {_sides(rows[best].spacing_mm)} mm: {which}."
    for coarser in rows[best + 1 : best + 2]:
        kept, worst = min((kept, name) for name, kept in coarser.fidelity.items())
        why_not = f"{worst} keeps {kept:.3f}" if kept < wanted else "a scan is too few features"
        text += f" At {_sides(coarser.spacing_mm)} mm {why_not}."
    if max(stem) > 1:
        text += f" Each merges {math.prod(stem)} voxels of the working grid, for finer contours."
    return text


def _why_source(spacing: Sequence[float], scans: int) -> str:
    if (ratio := max(spacing) / min(spacing)) > _ANISOTROPIC:
        return f"Median voxel size along each axis; slices {ratio:.1f} times as thick as the pixels stay so."
    return f"Median voxel size along each axis over {scans} scans."


def _sides(values: Sequence[float]) -> str:
    """Write three sides, or one where all are alike."""
    shown = [f"{side:g}" for side in values]
    return shown[0] if len(set(shown)) == 1 else " x ".join(shown)


def _choose_crop(measured: Fingerprint, config: PlanConfig) -> tuple[Crop, str]:
    if config.crop is not None:
        return config.crop, _GIVEN
    share = measured.background
    crop: Crop = "foreground" if share >= _BACKGROUND_SHARE else "none"
    limit = f"cropping begins at {_BACKGROUND_SHARE:.0%}"
    return crop, f"In a typical scan {share:.0%} of the voxels hold exactly its minimum; {limit}."


def _choose_normalisation(
    channels: Sequence[str], measured: Fingerprint, config: PlanConfig
) -> tuple[tuple[Normalisation, ...], str]:
    if config.normalisation is not None:
        return (config.normalisation,) * len(channels), _GIVEN
    chosen, names = list[Normalisation](), dict[str, list[str]]()
    for channel, intensity in zip(channels, measured.typical_intensity(), strict=True):
        how, reason = _normalise_channel(channel, intensity, measured.background)
        chosen.append(how)
        names.setdefault(reason, []).append(channel)
    text = " ".join(f"{', '.join(group)}: {reason}" for reason, group in names.items())
    return tuple(chosen), text


def _normalise_channel(name: str, intensity: Intensity, background: float) -> tuple[Normalisation, str]:
    low, high = intensity["p005"], intensity["p995"]
    window = "one window for all scans, the 0.5th to 99.5th percentile of the labeled foreground."
    if is_ct(name):
        return "ct", f"CT by its name, so {window}"
    if low <= _HOUNSFIELD_AIR and _HOUNSFIELD_TISSUE[0] <= high <= _HOUNSFIELD_TISSUE[1]:
        return "ct", f"values like Hounsfield units ({low:.0f} to {high:.0f}), so {window}"
    if background >= _BACKGROUND_SHARE and low == 0:
        how = "so mean 0 and standard deviation 1 over the other voxels of each scan."
        return "zscore_nonzero", f"0 in {background:.0%} of a typical scan, {how}"
    return "zscore", "no common unit, so mean 0 and standard deviation 1 for each scan."


def is_ct(channel: str) -> bool:
    """Whether a channel is CT by its name: CT as a word of its own, and no word for MR beside it.

    T1CT, T1-CT and "t1 ct" are contrast-enhanced MR; cT1 and CT1 are MR or unclear, so values decide.
    """
    words = re.findall(r"[^\W_]+", channel.lower())
    return "ct" in words and not any(_MR_WORD.fullmatch(word) for word in words)


def _extents_mm(measured: Fingerprint, crop: Crop) -> NDArray[np.float64]:
    """Return the extent of each scan along each axis, (cases, 3), after the crop."""
    sizes = [case.foreground_shape if crop == "foreground" else case.shape for case in measured.cases]
    return np.multiply(sizes, [case.spacing_mm for case in measured.cases])

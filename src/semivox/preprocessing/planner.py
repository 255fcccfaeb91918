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
from semivox.preprocessing.fingerprint import Fingerprint, Intensity, fingerprint
from semivox.preprocessing.grids import (
    BYTES_PER_VOXEL,
    FIDELITY,
    MAX_PATCH_VOXELS,
    GridRow,
    affordable_voxels,
    compare_grids,
    feature_limit,
    median_spacing,
    patch_for,
    strides_for,
    whole_patch,
)
from semivox.preprocessing.plan import FIGURES, SIDE, Crop, Normalisation, Plan, checked_plan

if TYPE_CHECKING:
    from semivox.datasets.dataset import Dataset
    from semivox.datasets.splits import Split

_MR_WORD = re.compile(r"(ce)?t[12]\w*|mri?|flair|pd|dwi|adc|swi")
_HOUNSFIELD_AIR, _HOUNSFIELD_TISSUE = -900.0, (100.0, 5000.0)
_BACKGROUND_SHARE = 0.25
_ANISOTROPIC = 3.0
_SMALL_SHARE = 0.05  # of a scan: less surrounding than that hardly tells where in the body a patch is
_GIVEN = "Given in the settings."


def make_plan(
    dataset: Dataset, split: Split, config: PlanConfig, *, measured: Fingerprint | None = None
) -> Plan:
    """Choose working grid, crop, normalisation and patch from the scans.

    Args:
        dataset: the cases.
        split: labels of its labeled cases alone are opened.
        config: overrides.
        measured: a fingerprint made before; None: made here.

    Raises:
        UserError: unusable files; a patch side that is not divisible by 16.
    """
    trust = bool(config.trust_image_geometry)
    measured = measured or fingerprint(dataset, split, trust_image_geometry=trust)
    reasons: dict[str, str] = {}
    crop, reasons["crop"] = _choose_crop(measured, config)
    normalisation, reasons["normalisation"] = _choose_normalisation(dataset.channels, measured, config)
    if measured.foreground is None and "ct" in normalisation:
        reasons["intensity"] = "Over whole scans, because the labels hold no foreground."
    network, why = _choose_network(measured, _extents_mm(measured, crop), config)
    reasons |= why
    if trust:
        reasons["trust_image_geometry"] = _GIVEN
    intensity = [channel.as_dict() for channel in measured.foreground or measured.typical_intensity()]
    declared = ("channels", "class_names", "class_values", "ignore_value")
    return checked_plan(
        {
            "dataset": dataset.name,
            **{name: getattr(dataset, name) for name in declared},
            **network,
            "normalisation": normalisation,
            "crop": crop,
            "trust_image_geometry": trust,
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
    if config.spacing_mm is None and config.grid != "source":
        limit, whose = feature_limit(config.memory_gb)
        wanted = config.fidelity or FIDELITY
        if rows := compare_grids(measured, extents_mm, limit, wanted):
            return _measured_network(rows, extents_mm, config, limit, whose)
    source = median_spacing(measured)
    spacing, stem = config.spacing_mm or source, config.stem or (1, 1, 1)
    patch, why = _choose_patch(extents_mm / spacing, config)
    network = {"spacing_mm": spacing, "stem": stem, "patch": patch, "grid": "source"}
    network["strides"] = strides_for(patch, stem, spacing)
    if config.spacing_mm is not None:
        return {**network, "grid": "given"}, {"spacing_mm": _GIVEN, "patch": why}
    reason, ratio = "Median voxel size along each axis", max(source) / min(source)
    if ratio > _ANISOTROPIC:
        return network, {
            "spacing_mm": f"{reason}; slices {ratio:.1f} times as thick as the pixels stay so.",
            "patch": why,
        }
    return network, {"spacing_mm": f"{reason} over {len(measured.cases)} scans.", "patch": why}


def _measured_network(
    rows: Sequence[GridRow], extents_mm: NDArray[np.float64], config: PlanConfig, limit: int, whose: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Take the grid that labels allow, and a patch of whole scans where there is room."""
    row, wanted = next(row for row in rows if row.chosen), config.fidelity or FIDELITY
    stem = config.stem or row.stem
    patch, strides = whole_patch(extents_mm / row.spacing_mm, row.spacing_mm, stem, limit)
    why = f"Holds {row.share:.0%} of a scan of median size; {whose} has room for {limit} features."
    if config.patch is not None:
        patch, strides = (
            config.patch,
            strides_for(config.patch, stem, np.divide(row.spacing_mm, stem).tolist()),
        )
        why = _GIVEN
    x, y, z = (float(f"{side / block:.6g}") for side, block in zip(row.spacing_mm, stem, strict=True))
    grid = (
        f"Features every {_sides(row.spacing_mm)} mm: of {len(rows)} grids the coarsest on which every class"
        f" keeps a Dice of {wanted:g}."
    )
    for coarser in rows[rows.index(row) + 1 :][:1]:
        worst = min(coarser.fidelity, key=lambda name: coarser.fidelity[name])
        lost = coarser.fidelity[worst] < wanted
        why_not = f"{worst} keeps {coarser.fidelity[worst]:.3f}" if lost else "a scan is too few features"
        grid += f" At {_sides(coarser.spacing_mm)} mm {why_not}."
    if max(stem) > 1:
        grid += f" Each merges {math.prod(stem)} voxels of the working grid, for finer contours."
    network = {"spacing_mm": (x, y, z), "stem": stem, "strides": strides, "patch": patch, "grid": "measured"}
    table = tuple(item.as_dict() for item in rows)
    return {**network, "fidelity": wanted, "grids": table}, {"spacing_mm": grid, "patch": why}


def _sides(values: Sequence[float]) -> str:
    """Write three sides, or one where all are alike."""
    shown = [f"{side:g}" for side in values]
    return shown[0] if len(set(shown)) == 1 else " x ".join(shown)


def _choose_crop(measured: Fingerprint, config: PlanConfig) -> tuple[Crop, str]:
    if config.crop is not None:
        return config.crop, _GIVEN
    share = measured.background()
    crop: Crop = "foreground" if share >= _BACKGROUND_SHARE else "none"
    limit = f"cropping begins at {_BACKGROUND_SHARE:.0%}"
    return crop, f"In a typical scan {share:.0%} of the voxels hold exactly its minimum; {limit}."


def _choose_normalisation(
    channels: Sequence[str], measured: Fingerprint, config: PlanConfig
) -> tuple[tuple[Normalisation, ...], str]:
    if config.normalisation is not None:
        return (config.normalisation,) * len(channels), _GIVEN
    share = measured.background()
    chosen = [
        _normalise_channel(*pair, share) for pair in zip(channels, measured.typical_intensity(), strict=True)
    ]
    names: dict[str, list[str]] = {}
    for channel, (_, reason) in zip(channels, chosen, strict=True):
        names.setdefault(reason, []).append(channel)
    text = " ".join(f"{', '.join(group)}: {reason}" for reason, group in names.items())
    return tuple(how for how, _ in chosen), text


def _normalise_channel(name: str, intensity: Intensity, background: float) -> tuple[Normalisation, str]:
    low, high = intensity.percentiles["p005"], intensity.percentiles["p995"]
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


def _choose_patch(shapes: NDArray[np.float64], config: PlanConfig) -> tuple[Triple, str]:
    """Choose the training patch: in the proportions of the median scan, within the memory."""
    if config.patch is not None:
        return config.patch, _GIVEN
    limit, room = MAX_PATCH_VOXELS, ""
    if config.memory_gb is not None:
        limit = affordable_voxels(config.memory_gb)
        room = (
            f" {config.memory_gb:g} GB are room for so many, at {BYTES_PER_VOXEL / 1000:.0f} kB a voxel (two"
            " networks of width 16, 4 patches a step, 32 bit)."
        )
    median = np.maximum(1, np.round(np.median(shapes, axis=0)))
    patch = patch_for(median.tolist(), limit)
    size = " x ".join(f"{side:.0f}" for side in median)
    share = float(np.prod(np.minimum(1, patch / median)))
    seen = f" It covers {share:.0%} of that scan."
    if share < _SMALL_SHARE:
        seen += " A coarser spacing_mm would show more of it at once."
    if any(side > axis for side, axis in zip(patch, median, strict=True)):
        seen += " Shorter axes are padded."
    return patch, (
        f"In the proportions of the median scan ({size} voxels at this voxel size),"
        f" at most {limit} voxels, sides divisible by {SIDE}.{room}{seen}"
    )


def _extents_mm(measured: Fingerprint, crop: Crop) -> NDArray[np.float64]:
    """Return the extent of each scan along each axis, (cases, 3), after the crop."""
    sizes = [case.foreground_shape if crop == "foreground" else case.shape for case in measured.cases]
    return np.multiply(sizes, [case.spacing_mm for case in measured.cases])

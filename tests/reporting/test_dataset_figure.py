"""The page about a data set: a point a case, and scans with their labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from semivox.preprocessing.fingerprint import CaseFingerprint, Fingerprint
from semivox.preprocessing.inspect import Sample
from semivox.reporting.dataset_figure import save_dataset_figure


def case(number: int, channels: int, labeled: bool) -> CaseFingerprint:
    levels = {"p005": 1.0 * number, "p050": 2.0, "p500": 5.0 + number, "p950": 8.0, "p995": 10.0 + number}
    volumes = {"organ": 3.0 + number, "tumor": 0.0} if labeled else None
    channel = {"mean": 5.0, "std": 2.0, **levels}
    return CaseFingerprint(
        f"case {number}", (30 + number, 40, 20), (1.0, 1.0, 2.0), 0.1, (30, 40, 20), (channel,) * channels,
        volumes, None,
    )  # fmt: skip


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    label = np.zeros((20, 25, 10), np.uint8)
    label[5:12, 8:15, 3:7] = 1
    image = rng.normal(size=label.shape)
    return [Sample("a", image, label, (1, 1, 2), "LPS"), Sample("b" * 60, image, None, (1, 1, 2), "RAS")]


def draw(path: Path, measured: Fingerprint, channels: tuple[str, ...]) -> None:
    names = ("background", "organ", "tumor")
    dataset = SimpleNamespace(name="Set", channels=channels, class_names=names)
    save_dataset_figure(path, SimpleNamespace(dataset=dataset, measured=measured), samples())


@pytest.mark.parametrize("channels", [("CT",), ("T1", "T1c", "T2", "FLAIR")])
def test_every_case_has_its_points(tmp_path: Path, drawn: list[Figure], channels: tuple[str, ...]) -> None:
    measured = Fingerprint(tuple(case(n, len(channels), n < 3) for n in range(7)), None)
    draw(tmp_path / "a.png", measured, channels)
    by_title = {panel.get_title(loc="left"): panel for panel in drawn[0].axes}
    voxels = [c for c in by_title["voxels"].collections if isinstance(c, PathCollection)]
    assert [np.sort(part.get_offsets()[:, 1]).tolist() for part in voxels] == [
        list(range(30, 37)), [40] * 7, [20] * 7,
    ]  # fmt: skip
    volumes = by_title["class volumes in mL, labeled cases"].collections
    assert [sorted(part.get_offsets()[:, 1]) for part in volumes] == [[3, 4, 5], [0, 0, 0]]
    for channel in channels:
        panel = by_title[f"intensities of {channel}: 0.5 to 99.5 %"]
        (points,) = [part for part in panel.collections if isinstance(part, PathCollection)]
        assert points.get_offsets()[:, 1].tolist() == [5.0 + number for number in range(7)]
        left, right = panel.get_xlim()
        assert left < 0 and right > 6
    texts = [text.get_text() for text in drawn[0].texts]
    assert "7 scans, 3 of them labeled (blue; the others gray)" in texts
    assert len(drawn[0].axes) == 2 + 3 + len(channels)
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["organ", "tumor"]


def test_one_scan_has_one_tick(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "a.png", Fingerprint((case(0, 1, True),), None), ("CT",))
    (panel,) = [one for one in drawn[0].axes if one.get_title(loc="left").startswith("intensities")]
    left, right = panel.get_xlim()
    assert [tick for tick in panel.get_xticks() if left <= tick <= right] == [0]
    assert any(text.get_text().startswith("1 scan, 1 of them") for text in drawn[0].texts)


def test_the_page_is_written_also_without_labels(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", Fingerprint((case(0, 1, False),), None), ("MR",))
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"

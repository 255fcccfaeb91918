"""What the papers and their code fix in numbers: weights and thresholds over a run, and sizes of networks."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.cost import count_parameters
from semivox.nets import NetFactory

TO_40_PERCENT = {0: 0.0067379, 3000: 0.2865048, 6000: 1.0, 14999: 1.0}
WHOLE_RUN = {0: 0.0067379, 3000: 0.2865048, 5999: 1.0}
FALLING = {0: 0.748989, 2000: 0.740992, 4000: 0.707024, 6000: 0.640258, 7999: 0.6}
SCHEDULES: list[tuple[str, dict[str, Any], str, float, int, dict[int, float]]] = [
    # method, options, what is noted, its unit, iterations, values
    ("ac_mt", {}, "weight", 0.1, 8000, {0: 0.0067379, 150: 0.008625, 3000: 0.286505, 6000: 1, 7999: 1}),
    ("ac_mt", {}, "threshold", 1, 8000, FALLING),
    ("ac_mt", {"selector": "model_uncertainty"}, "threshold", 1, 8000, FALLING),
    ("ac_mt", {"variant": "released"}, "threshold", 1, 8000,
     {0: 0.751348, 2000: 0.762011, 4000: 0.807301, 6000: 0.896323, 7999: 0.95}),
    ("ac_mt", {"variant": "released", "selector": "model_uncertainty"}, "threshold", 1 / log(2), 8000,
     {0: 0.520561, 2000: 0.526104, 4000: 0.549649, 6000: 0.595928, 7999: 0.623832}),
    ("ad_mt", {}, "weight", 2, 15000, {0: 0.0067379, 150: 0.008625, 3000: 0.286505, 6000: 1, 14999: 1}),
    ("cpcl", {}, "weight", 0.1, 10000,
     {0: 0.0067379, 150: 0.008625, 1500: 0.060055, 3000: 0.286505, 4500: 0.731616, 6000: 1}),
    ("cross_match", {}, "threshold", 1, 14000, {0: 0.521028, 7000: 0.550579, 13999: 0.668145}),
    ("dtc", {}, "weight_consistency", 1, 6000, WHOLE_RUN),
    ("dual", {}, "weight_pgl", 0.1, 10, {0: 0.0067379, 5: 0.2865048, 10: 1}),
    ("mc_net", {}, "weight_consistency", 1, 15000, TO_40_PERCENT),
    ("mcf", {}, "weight_dcpl", 0.1, 6000, WHOLE_RUN),
    ("ml_rpl", {}, "weight_mutual", 1, 15000, TO_40_PERCENT),
    ("sassnet", {"weight": 0.015}, "weight_adversarial", 0.015, 6000, WHOLE_RUN),
    ("ss_net", {}, "weight_unsup", 1, 15000, TO_40_PERCENT),
    ("ua_mt", {}, "weight", 0.1, 6000,
     {0: 0.0067379, 1500: 0.0600547, 3000: 0.2865048, 4500: 0.7316156, 5999: 0.9968799}),
    ("ua_mt", {}, "threshold", 1 / log(2), 6000, {0: 0.521028, 3000: 0.5695079, 6000: 0.6931472}),
    ("urpc", {}, "weight", 0.1, 60000, {0: 0.0067379, 30000: 0.2865048, 60000: 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "note", "unit", "total", "values"), SCHEDULES, ids=lambda value: str(value)[:30]
)
def test_weights_and_thresholds_over_the_run(
    step: Callable[..., Any],
    name: str,
    options: dict[str, Any],
    note: str,
    unit: float,
    total: int,
    values: dict[int, float],
) -> None:
    method = create(name, options, NetFactory(1, 2, width=2))
    image = torch.randn(4, 1, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    labeled, unlabeled = Batch(image[:2], (image[:2, 0] > 0).long()), Batch(image[2:], None)
    found = {}
    for iteration in values:
        method.losses(labeled, unlabeled, at := step(iteration, total))
        found[iteration] = at.notes[note].item() / unit
    assert found == pytest.approx(values, abs=3e-6)


@pytest.mark.parametrize(
    ("name", "options", "norm", "total", "sizes"),
    [
        ("sassnet", {}, "batch", 20_469_156, {"net": 9_448_866, "discriminator": 11_020_290}),
        ("sdcl", {}, "instance", 36_806_550, {"net_a": 9_443_266, "net_b": 17_920_018, "teacher": 9_443_266}),
        ("ss_net", {}, "batch", 9_448_866 + 8_452, {"net": 9_448_866}),
        ("urpc", {}, "batch", 5_884_504, {}),
        ("urpc", {"net": "vnet"}, "batch", 9_448_866 + 2 * (32 + 64 + 128) + 3 * 2, {"net": 9_448_866}),
    ],
)
def test_sizes(name: str, options: dict[str, Any], norm: Any, total: int, sizes: dict[str, int]) -> None:
    """SDCL's instance normalisation learns no scale, as released."""
    with torch.device("meta"):
        method = create(name, options, NetFactory(1, 2, norm=norm))
    assert count_parameters(method) == total
    assert {part: count_parameters(getattr(method, part)) for part in sizes} == sizes

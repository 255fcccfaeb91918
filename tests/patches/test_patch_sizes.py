"""Which patches a run is trained on, and when."""

from types import SimpleNamespace
from typing import Any

import pytest

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.patches.patch_sizes import PatchSizes, patch_sizes

SMALL, LARGE = (32, 32, 16), (64, 48, 16)
PLAN: Any = SimpleNamespace(patch=SMALL, final_patch=LARGE)


@pytest.mark.parametrize(
    ("share", "large"), [(0.0, 0), (0.1, 1), (0.15, 2), (0.5, 5), (1.0, 10)], ids=lambda value: f"{value:g}"
)
def test_the_share_is_rounded_and_stands_at_the_end(share: float, large: int) -> None:
    sizes = patch_sizes(PLAN, TrainConfig(final_share=share), 10)
    assert [sizes.at(iteration) for iteration in range(10)] == [SMALL] * (10 - large) + [LARGE] * large


def test_a_plan_without_a_final_patch() -> None:
    old: Any = SimpleNamespace(patch=SMALL, final_patch=None)
    assert patch_sizes(old, TrainConfig(), 10) == PatchSizes(SMALL)
    with pytest.raises(UserError, match=r"final_share 0\.2.*plans\.json"):
        patch_sizes(old, TrainConfig(final_share=0.2), 10)

"""The size of a run's patches: the plan's patch first, its final patch for the last share of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from semivox.errors import UserError
from semivox.io.extent import Triple

if TYPE_CHECKING:
    from semivox.config import TrainConfig
    from semivox.preprocessing.plan import Plan


class PatchSizes(NamedTuple):
    """`first` before iteration `change`, `final` from there on; without a change always `first`."""

    first: Triple
    final: Triple | None = None
    change: int = 0

    def at(self, iteration: int) -> Triple:
        """Voxels along each axis of the patches that this iteration trains on."""
        return self.first if self.final is None or iteration < self.change else self.final


def patch_sizes(plan: Plan, config: TrainConfig, iterations: int) -> PatchSizes:
    """The sizes of a run of so many iterations, as `train.final_share` divides it.

    Raises:
        UserError: the plan has no final patch, because an earlier version made it.
    """
    if not config.final_share:
        return PatchSizes(plan.patch)
    if plan.final_patch is None:
        raise UserError(
            "The plan has no patch for the last part of the run",
            found=f"train.final_share {config.final_share:g}, but no final_patch in plans.json",
            expected="a plan with final_patch",
            do="delete plans.json and run semivox prepare again, which keeps the prepared scans; or write one"
            " into plans.json, e.g. the size of a large scan, its sides multiples of 16",
        )
    return PatchSizes(plan.patch, plan.final_patch, iterations - round(config.final_share * iterations))

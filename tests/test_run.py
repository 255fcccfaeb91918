"""Which settings a run folder goes on with."""

from pathlib import Path

import pytest

from semivox.config import Config, load_config
from semivox.errors import UserError
from semivox.run import Run


@pytest.fixture
def budgeted(tmp_path: Path) -> Run:
    """A run of 60 iterations that a budget of 12 s has found."""
    run = Run(tmp_path)
    run.start(asked(iterations=60, budget_s=12.0))
    return run


def asked(**train: object) -> Config:
    return load_config(train=train)


@pytest.mark.parametrize("final", [{}, {"final_share": 0.3}])
def test_a_run_with_a_budget_is_extended_by_iterations(budgeted: Run, final: dict[str, float]) -> None:
    longer = asked(iterations=90, **final)
    assert budgeted.resume_config(longer, extend=True) == longer


def test_the_same_budget_resumes(budgeted: Run) -> None:
    assert budgeted.resume_config(asked(budget_s=12.0)).train.iterations == 60


@pytest.mark.parametrize(
    ("train", "extend"),
    [
        ({"iterations": 90}, False),
        ({"iterations": 50}, True),
        ({"iterations": 90, "lr": 0.5}, True),
        ({"iterations": 90, "final_share": 0.3}, False),
        ({"iterations": 90, "budget_s": 20.0}, True),
    ],
)
def test_anything_else_is_another_run(budgeted: Run, train: dict[str, float], extend: bool) -> None:
    with pytest.raises(UserError, match=r"train\.iterations: 60 stored|train\.budget_s"):
        budgeted.resume_config(asked(**train), extend=extend)

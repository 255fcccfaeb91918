"""A diagnosed run is the run that was not diagnosed; its gradients are those of the steps."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from engine_toy import Toy, assert_same_weights, loaders_for, make_toy, score, settings, stop_at
from engine_toy import table as logged

from semivox.methods.base import Batch, Method, Step
from semivox.training.checkpoints import last_path, load
from semivox.training.diagnosis import Diagnosis, Row, gradient_norms
from semivox.training.loop import fit

EVERY = {"diagnose_every": 4}


class Careless(Diagnosis):
    """Reports on the weights it gets, draws random numbers, and leaves nothing as it was."""

    def measure(self, method: Method, device: torch.device) -> Iterator[Row]:
        assert method.training and not torch.is_grad_enabled()
        yield "size", "weights", "all", sum(float(value.double().sum()) for value in method.parameters())
        yield "random", "", "", float(torch.rand(()))
        method.predict(torch.rand(2, 1, 6, 6, 6))  # moves the running means
        method.eval()
        for value in (*method.parameters(), *method.buffers()):
            value.zero_()


def run(folder: Path, *, diagnosed: bool, toy: Toy | None = None) -> Toy:
    toy, config = toy or make_toy(), settings(**EVERY)
    drawn: list[int] = []
    path = folder / "diagnosis" / "diagnosis.csv"
    diagnosis = Careless((), (), path, lambda path: drawn.append(len(path.read_text())))
    fit(toy, loaders_for(config), config, folder, validate=score, diagnosis=diagnosis if diagnosed else None)
    assert len(drawn) == diagnosed
    return toy


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "diagnosis" / "diagnosis.csv")


def test_the_trained_weights_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    plain, diagnosed = run(tmp_path / "a", diagnosed=False), run(tmp_path / "b", diagnosed=True)
    assert_same_weights(diagnosed, plain)
    a, b = load(last_path(tmp_path / "a")), load(last_path(tmp_path / "b"))
    assert all(torch.equal(x, y) for x, y in zip(a.momentum, b.momentum, strict=True))
    pd.testing.assert_frame_equal(*(logged(tmp_path / name) for name in "ab"), check_exact=True)
    assert not (tmp_path / "a" / "diagnosis").exists()


def test_rows_stand_where_they_are_due(tmp_path: Path) -> None:
    run(tmp_path, diagnosed=True)
    found = table(tmp_path)
    assert list(found.columns) == ["iteration", "measure", "of", "part", "value"]
    assert sorted(set(found["iteration"])) == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert not found.duplicated(["iteration", "measure", "of", "part"]).any()
    assert set(found.loc[found["iteration"] == 40, "measure"]) == {"size", "random"}
    sizes = found.loc[found["measure"] == "size", "value"]
    assert sizes.nunique() == len(sizes)  # the weights of that moment


def test_a_resumed_run_writes_the_table_of_an_uninterrupted_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):  # the last checkpoint is that of 10
        run(tmp_path / "stopped", diagnosed=True, toy=stop_at(make_toy(), 13))
    assert table(tmp_path / "stopped")["iteration"].max() == 12
    run(tmp_path / "stopped", diagnosed=True)
    run(tmp_path / "whole", diagnosed=True)
    texts = [(tmp_path / name / "diagnosis" / "diagnosis.csv").read_text() for name in ("stopped", "whole")]
    assert texts[0] == texts[1]


class Remembering(Toy):
    """Keeps the gradient that each step was taken with."""

    def after_step(self, step: Step) -> None:
        super().after_step(step)
        grads = [parameter.grad for parameter in (self.first.weight, self.first.bias)]
        norm = torch.cat([grad.flatten() for grad in grads if grad is not None]).norm()
        self.seen = {**getattr(self, "seen", {}), step.iteration: float(norm)}


def test_gradients_are_those_of_the_step_itself(tmp_path: Path) -> None:
    """Same batch, same dropout, same noise: the norm of the sum is that of the step's own `.grad`."""
    torch.manual_seed(0)
    toy = Remembering(Toy.Config())
    toy.build()
    run(tmp_path, diagnosed=True, toy=toy)
    found = table(tmp_path)
    found = found[(found["measure"] == "gradient") & (found["of"] == "sum") & (found["part"] == "first")]
    assert len(found) == 10
    for iteration, value in zip(found["iteration"], found["value"], strict=True):
        assert value == pytest.approx(toy.seen[iteration], rel=1e-4)


def test_gradient_norms_equal_separate_backward_passes() -> None:
    toy = make_toy(dropout=0.0, late=5)
    labeled = Batch(torch.randn(2, 1, 6, 6, 6), torch.randint(0, 2, (2, 6, 6, 6)))
    unlabeled = Batch(torch.randn(2, 1, 6, 6, 6), None)

    def terms(method: Toy) -> dict[str, torch.Tensor]:
        return method.losses(labeled, unlabeled, Step(0, 10, torch.Generator().manual_seed(0)))

    found = {row[1:3]: row[3] for row in gradient_norms(toy, terms(toy), scale=64.0)}
    assert all(parameter.grad is None for parameter in toy.parameters())
    assert {name for name, _ in found} == {"supervised", "consistency", "sum"}  # "late" is detached
    assert ("supervised", "late_head") not in found
    for (name, child), value in found.items():
        copy = deepcopy(toy)
        values = terms(copy)
        (values["supervised"] + values["consistency"] if name == "sum" else values[name]).backward()
        grads = [p.grad.flatten() for p in getattr(copy, child).parameters() if p.grad is not None]
        assert value == pytest.approx(float(torch.cat(grads).norm()), rel=1e-5)


class Adversarial(Toy):
    """The last layer is a critic's."""

    def critic_parameters(self) -> list[dict[str, Any]]:
        return [{"params": list(self.last.parameters()), "lr": 0.01}]

    def critic_losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, torch.Tensor]:
        return {"critic": self.last(self.features(unlabeled.image)).square().mean()}


def test_a_critic_has_gradients_of_its_own_losses_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    toy = Adversarial(Toy.Config())
    toy.build()
    run(tmp_path, diagnosed=True, toy=toy)
    found = table(tmp_path)
    found = found[found["measure"] == "gradient"]
    assert set(found.loc[found["part"] == "last", "of"]) == {"critic"}
    assert set(found.loc[found["of"] == "critic", "part"]) == {"last"}
    assert (found["value"] > 0).all()

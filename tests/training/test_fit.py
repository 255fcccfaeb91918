"""What one run does: steps, schedules, streams, validation, failures."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from engine_toy import Patches, Toy, loaders_for, make_toy, score, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.losses.schedules import Stage
from semivox.methods.base import Batch, Step
from semivox.training.checkpoints import best_path, last_path, load, load_weights
from semivox.training.loop import FitResult, fit
from semivox.training.step import make_optimizer


def run(toy: Toy, config: TrainConfig, folder: Path, validate: Any = None, **loaders: Any) -> FitResult:
    make = loaders_for(config, **loaders)
    return fit(toy, make, config, folder, validate=validate)


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "logs" / "metrics.csv").set_index("iteration")


def flat(toy: Toy) -> Tensor:
    return torch.cat([value.double().flatten() for value in toy.state_dict().values()])


def test_equals_a_plain_loop(tmp_path: Path) -> None:
    """Without noise the engine is SGD with the schedule, also for a head that is used from step 3 on."""
    config = settings(iterations=12, lr=0.1, schedule="poly")
    options = {"dropout": 0.0, "late": 3}
    trained, expected = make_toy(**options), make_toy(**options)
    run(trained, config, tmp_path, streams=("labeled",))

    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    patches = Patches(config.seed, True, 0, 12, 0.0)
    for iteration in range(12):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - iteration / 12) ** 0.9
        step = Step(iteration, 12, torch.Generator())
        nothing = Batch(torch.zeros(0, 1, 6, 6, 6), None)
        batch = patches[iteration]
        terms = expected.losses(Batch(batch["image"], batch["label"]), nothing, step)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        with torch.no_grad():
            expected.after_step(step)
    torch.testing.assert_close(flat(trained), flat(expected), rtol=1e-5, atol=1e-7)
    assert not torch.equal(trained.late_head.weight, make_toy(**options).late_head.weight)


def test_fused_sgd_takes_a_late_first_gradient() -> None:
    config = settings()
    results = []
    for fused in (False, True):
        a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
        optimizer = make_optimizer([a, b], config, None, fused=fused)
        for iteration in range(3):
            a.grad = torch.full((3,), 1.0 + iteration)
            b.grad = torch.full((2,), 2.0) if iteration else None
            optimizer.step()
        results.append(torch.cat([a, b]).detach())
    torch.testing.assert_close(results[0], results[1])
    assert results[0][3] == pytest.approx(1 - 0.01 * 2 * 2.9, abs=1e-4)  # two steps: g, then 0.9 g + g


def test_log_has_losses_notes_and_scores(tmp_path: Path) -> None:
    toy, seen = make_toy(), []
    losses = toy.losses

    def spy(labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        terms = losses(labeled, unlabeled, step)
        seen.append({name: float(term.detach()) for name, term in terms.items()})
        return terms

    toy.losses = spy  # type: ignore[method-assign]
    run(toy, settings(iterations=9, log_every=3, validate_every=4), tmp_path, validate=score)
    log = rows(tmp_path)
    assert list(log.index) == [1, 3, 4, 6, 8, 9]
    assert list(log["val_dice"].notna()) == [False, False, True, False, True, True]
    for iteration in log.index:
        terms = seen[iteration - 1]
        for name, value in terms.items():
            assert log.loc[iteration, name] == pytest.approx(value, rel=1e-5)
        assert log.loc[iteration, "loss"] == pytest.approx(sum(terms.values()), rel=1e-5)
        assert log.loc[iteration, "ramp"] == pytest.approx((iteration - 1) / 9, rel=1e-5)
    assert log["seconds"].is_monotonic_increasing


def test_absent_stream_is_an_empty_batch(tmp_path: Path) -> None:
    shapes: list[tuple[Any, ...]] = []

    def hook(labeled: Batch, unlabeled: Batch, step: Step) -> None:
        assert labeled.label is not None and unlabeled.label is None
        shapes.append((*labeled.image.shape, *labeled.label.shape, *unlabeled.image.shape))

    for stream in ("labeled", "unlabeled"):
        toy = make_toy()
        toy.hook = hook
        run(toy, settings(iterations=1), tmp_path / stream, streams=(stream,))
    full, empty = (2, 1, 6, 6, 6), (0, 1, 6, 6, 6)
    assert shapes == [(*full, 2, 6, 6, 6, *empty), (*empty, 0, 6, 6, 6, *full)]
    with pytest.raises(UserError, match="nothing to train on"):
        run(make_toy(), settings(iterations=1), tmp_path / "none", streams=())


def test_seed_decides_the_weights(tmp_path: Path) -> None:
    results = []
    for index, seed in enumerate((3, 3, 4)):
        toy = make_toy()
        torch.manual_seed(index)  # what happened before must not matter
        run(toy, settings(iterations=5, seed=seed), tmp_path / str(index))
        results.append(flat(toy))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_steps_draw_different_noise(tmp_path: Path) -> None:
    """Neither dropout nor the step's generator repeats from one step to the next."""
    toy, draws = make_toy(), []
    toy.hook = lambda labeled, unlabeled, step: draws.append(
        (float(torch.rand(1)), float(torch.rand(1, generator=step.generator)))
    )
    run(toy, settings(iterations=20), tmp_path)
    assert len({value for pair in draws for value in pair}) == 40


def test_best_checkpoint_has_the_highest_dice(tmp_path: Path) -> None:
    dices, weights = iter([0.3, float("nan"), 0.8, 0.5]), []

    def validate(method: Any, device: torch.device, done: int) -> dict[str, float]:
        weights.append(flat(method))
        return {"dice": next(dices), "hd95_mm": 2.0}

    toy = make_toy()
    result = run(toy, settings(iterations=8, validate_every=2), tmp_path, validate=validate)
    assert result.best == {"iteration": 6, "dice": 0.8, "hd95_mm": 2.0}
    kept = make_toy(seed=9)
    assert load_weights(best_path(tmp_path), kept).iteration == 6
    assert torch.equal(flat(kept), weights[2])
    assert not torch.equal(flat(toy), weights[2])  # what fit returns is the last


def test_validation_changes_nothing(tmp_path: Path) -> None:
    """Modules in evaluation mode stay there, the others train on, and random numbers do not shift."""
    modes, toys = [], [make_toy(), make_toy()]

    def hook_of(toy: Toy) -> Any:
        def hook(labeled: Batch, unlabeled: Batch, step: Step) -> None:
            if step.iteration == 0:
                toy.drop.training = False
            modes.append((toy.training, toy.norm.training, toy.drop.training))

        return hook

    for index, toy in enumerate(toys):
        toy.hook = hook_of(toy)
        config = settings(iterations=6, validate_every=2)
        run(toy, config, tmp_path / str(index), validate=score if index else None)
    assert torch.equal(flat(toys[0]), flat(toys[1]))
    assert set(modes) == {(True, True, False)}


def test_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    config = settings(iterations=20, log_every=5, checkpoint_every=5)
    with pytest.raises(UserError, match="not finite at iteration 8 of 20") as error:
        run(make_toy(poison=8), config, tmp_path)
    assert re.findall(r"\w+ \(iteration \d+\)", str(error.value.found))[0] == "consistency (iteration 8)"
    checkpoint = load(last_path(tmp_path))
    assert checkpoint.iteration == 5
    assert all(value.isfinite().all() for value in checkpoint.weights.values())
    assert rows(tmp_path).index[-1] == 10 and not math.isfinite(rows(tmp_path)["loss"].iloc[-1])


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    toy = make_toy()
    toy.register_parameter("odd", torch.nn.Parameter(torch.zeros(())))
    losses = toy.losses
    toy.losses = lambda a, b, step: losses(a, b, step) | {"root": toy.odd.sqrt()}  # type: ignore[method-assign]
    with pytest.raises(UserError, match="weights are not finite after iteration 1"):
        run(toy, settings(checkpoint_every=1, weight_decay=0), tmp_path)
    assert not last_path(tmp_path).exists()


def test_loss_must_be_a_scalar(tmp_path: Path) -> None:
    toy = make_toy()
    toy.losses = lambda a, b, step: {"map": toy.last(toy.features(a.image))}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="loss map must be a scalar"):
        run(toy, settings(), tmp_path)


def test_loaders_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    make = loaders_for(settings(iterations=5))
    with pytest.raises(ValueError, match="must have 6 batches"):
        fit(make_toy(), make, settings(iterations=6), tmp_path, validate=None)


class Reads(TorchDispatchMode):
    """Counts the operators that hand a number to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("critic", [False, True])
def test_nothing_is_read_between_log_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, critic: bool
) -> None:
    reads, at, now = Reads(), [], [0]
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        plain = getattr(Tensor, name)

        def reading(self: Tensor, *args: Any, plain: Any = plain, **kwargs: Any) -> Any:
            at.append(now[0])
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, reading)
    toy = make_toy(critic=critic)

    def hook(labeled: Batch, unlabeled: Batch, step: Step) -> None:
        at.extend(now[0] for _ in reads.names)
        reads.names.clear()
        now[0] = step.iteration + 1

    toy.hook = hook
    with reads:
        run(toy, settings(iterations=12, log_every=5, checkpoint_every=12), tmp_path)
    assert set(at) - {0} == {1, 5, 10, 12}  # 0: before the first step
    assert at.count(5) == at.count(10) == 1


def test_bf16_trains_under_autocast(tmp_path: Path) -> None:
    """Networks and critic, with weights in float32."""
    toy, kinds = make_toy(critic=True), list[torch.dtype]()
    toy.last.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    run(toy, settings(iterations=2, precision="bf16", validate_every=1), tmp_path, validate=score)
    assert set(kinds) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in toy.parameters())


class Failing(Patches):
    def __getitem__(self, index: int) -> dict[str, Any]:
        raise UserError("The case is broken", found="nothing", do="repair it")


def test_error_in_a_loader_process_stays_readable(tmp_path: Path) -> None:
    config = settings(iterations=3)

    def make(stage: Stage, start: int, rank: int, world: int) -> dict[str, DataLoader[Any]]:
        return {"labeled": DataLoader(Failing(0, True, start, 3, 0.0), batch_size=None, num_workers=1)}

    with pytest.raises(UserError) as error:
        fit(make_toy(), make, config, tmp_path, validate=None)
    assert str(error.value).startswith("The case is broken") and "Traceback" not in str(error.value)

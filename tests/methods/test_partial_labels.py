"""Labeled patches in which some voxels have no label: what every registered method does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_host_reads import counted_reads
from torch import Tensor
from torch.overrides import TorchFunctionMode

from semivox.losses.mixing import cuboid_mask, exchange_masks
from semivox.methods import METHODS, create, method_class
from semivox.methods.base import Batch, Method
from semivox.nets import NetFactory

Factory = Callable[..., Any]
NET = NetFactory(in_channels=1, num_classes=3, width=2, dropout=0.0)
SHAPE = (32, 16, 16)
VALID = torch.ones(2, *SHAPE, dtype=torch.bool)
VALID[:, 13:] = False
VALID[:, 3:5, 7] = False
USES_LABEL = ("sup", "cdr", "cr")

VARIANTS: list[tuple[str, dict[str, Any], int]] = [
    *((name, {}, 5) for name in METHODS),
    ("ac_mt", {"selector": "model_uncertainty"}, 5),
    ("bcp", {}, 0),
    ("cpcl", {"variant": "released"}, 5),
    ("dtc", {"absent": "zero"}, 5),
    ("dual", {"cr_target": "label", "exclude_uncertain": True, "pseudo_dice": True}, 5),
    ("dual", {"mix": "paste", "ue_reading": "weight", "pgl_percentile": "batch"}, 5),
    ("dual", {"mix": "paste", "percentile_by": "class", "ue_on": "unlabeled"}, 5),
    ("dual", {"variant": "released"}, 5),
    ("dual", {"cr_target": "label", "cr_distance": "kl", "cr_mask": "or"}, 5),
    ("dual", {"mix": "paste", "warmup_fraction": 0.8}, 5),
    ("dual", {"mix": "paste", "efs_target": "lower_entropy", "efs_normalise": "mean"}, 5),
    ("luseg", {"variant": "released"}, 5),
    ("mc_net", {"ce_weight": 1.0}, 5),
    ("ss_net", {"ce_weight": 1.0, "variant": "released"}, 5),
    ("supervised", {"mix": "paste"}, 5),
    ("ua_mt", {"consistency_on_labeled": True}, 5),
]
every_variant = pytest.mark.parametrize(
    ("name", "options", "iteration"), VARIANTS, ids=lambda value: str(value) if value != {} else "defaults"
)


def build(name: str, options: dict[str, Any]) -> Method:
    torch.manual_seed(0)
    return create(name, options, NET)


def patches(seed: int, valid: Tensor | None = VALID) -> tuple[Batch, Batch]:
    """Two boxes on noise; where the label does not count it is random."""
    image = 0.3 * torch.randn(4, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(4, *SHAPE, dtype=torch.int64)
    label[:, 2:7, 3:10, 3:11] = 1
    label[:, 9:22, 4:9, 6:13] = 2
    image += label.unsqueeze(1)
    hidden = torch.randint(0, 3, (2, *SHAPE), generator=torch.Generator().manual_seed(seed))
    label = label[:2] if valid is None else torch.where(valid, label[:2], hidden)
    return Batch(image[:2], label, valid=valid), Batch(image[2:], None)


class Outputs(TorchFunctionMode):
    """Keeps the gradients of the maps that go into a softmax (or tanh, of distance maps)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.log_softmax, torch.tanh) and args[0].dim() == 5 and args[0].requires_grad:
            args[0].retain_grad()
            self.found.append(args[0])
        return function(*args, **(kwargs or {}))


def test_all_methods_of_the_package_take_partial_labels() -> None:
    assert Method.partial_labels and all(method_class(name).partial_labels for name in METHODS)


@every_variant
def test_what_a_voxel_without_label_would_be_changes_nothing(
    name: str, options: dict[str, Any], iteration: int, step: Factory
) -> None:
    found = []
    for seed in (1, 2):
        method = build(name, options)
        for at in (iteration, iteration):  # the second step also sees what the first one remembered
            losses = method.losses(*patches(seed), step(at))
        torch.stack(list(losses.values())).sum().backward()
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        found.append(({key: loss.item() for key, loss in losses.items()}, gradients))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))
    visible = build(name, options).losses(*patches(1, None), step(iteration))
    assert any(visible[key].item() != value for key, value in found[0][0].items() if key.startswith("sup"))


@every_variant
def test_if_all_voxels_count_it_is_as_without_a_mask(
    name: str, options: dict[str, Any], iteration: int, step: Factory
) -> None:
    masked, plain = (
        build(name, options).losses(*patches(1, valid), step(iteration))
        for valid in (torch.ones_like(VALID), None)
    )
    labels = patches(1, torch.ones_like(VALID))[0].target, patches(1, None)[0].target
    assert torch.equal(*labels)
    values = {key: loss.item() for key, loss in plain.items()}
    assert {key: loss.item() for key, loss in masked.items()} == pytest.approx(values, rel=1e-5, abs=1e-7)


@every_variant
def test_supervised_gradients_are_zero_where_there_is_no_label(
    name: str, options: dict[str, Any], iteration: int, step: Factory
) -> None:
    """Ignored are the same voxels of each patch, hence also of mixtures of labeled patches."""
    method = build(name, options)
    labeled, unlabeled = patches(1)
    with Outputs() as outputs:
        losses = method.losses(labeled, unlabeled, step(iteration))
    for own in outputs.found:
        own.grad = None  # of an adversarial probe
    terms = [loss for key, loss in losses.items() if key.startswith(USES_LABEL)]
    torch.stack(terms).sum().backward()
    inside = VALID[0]
    fine = [own for own in outputs.found if own.shape[2:] == inside.shape]  # not those of deep supervision
    gradients = [own.grad for own in fine if own.grad is not None]
    assert gradients
    for gradient in gradients:
        assert bool((gradient[..., ~inside] == 0).all())
    assert any(bool((gradient[..., inside] != 0).any()) for gradient in gradients)


@every_variant
def test_no_label_at_all(name: str, options: dict[str, Any], iteration: int, step: Factory) -> None:
    method = build(name, options)
    batches, at = patches(1, torch.zeros_like(VALID)), step(iteration)
    with counted_reads() as reads:
        for _ in range(2):
            losses = method.losses(*batches, at)
    assert not reads.keys() - {"cpu", "numpy"}  # as in `test_host_reads`
    assert all(loss.item() == 0 for key, loss in losses.items() if key.startswith(USES_LABEL))
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert gradients and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_pasted_voxels_without_label_are_not_taught(step: Factory) -> None:
    """In a mixture of `dual` they have the image of one scan, and the networks' view of another one."""
    options = {"mix": "paste", "lambda_max": 0.0}
    labeled, unlabeled = patches(1, torch.zeros_like(VALID))
    pasted = exchange_masks(2, cuboid_mask(SHAPE, 2 / 3, step(5).generator))
    for key in ("cps", "efs", "ue"):
        method = build("dual", options)
        with Outputs() as outputs:
            losses = method.losses(labeled, unlabeled, step(5))
        losses[key].backward()
        assert len(outputs.found) == 2
        for own in outputs.found:
            assert own.grad is not None
            gradient = own.grad[2:].abs().sum(dim=1)
            assert bool((gradient[pasted] == 0).all()) and bool((gradient[~pasted] > 0).any())


def test_pasted_voxels_with_a_label_are_taught(step: Factory) -> None:
    labeled, unlabeled = patches(1)
    method = build("dual", {"mix": "paste"})
    pasted = exchange_masks(2, cuboid_mask(SHAPE, 2 / 3, step(5).generator))
    with Outputs() as outputs:
        losses = method.losses(labeled, unlabeled, step(5))
    losses["efs"].backward()
    gradient = outputs.found[0].grad
    assert gradient is not None
    taught = gradient[2:].abs().sum(dim=1) > 0
    assert bool(taught[pasted & VALID].all()) and not bool(taught[pasted & ~VALID].any())

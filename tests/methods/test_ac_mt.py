"""AC-MT: published schedules, terms against NumPy, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.nets import NetFactory

Factory = Callable[..., Any]

FINAL_CHANGE = {
    ("paper", "entropy"): -0.15,
    ("paper", "model_uncertainty"): -0.15,
    ("released", "entropy"): 0.20,
    ("released", "model_uncertainty"): 0.15,
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("iteration", [0, 6, 9])
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("selector", ["entropy", "model_uncertainty"])
def test_against_numpy(
    tiny: Factory, step: Factory, naive: Any, classes: int, iteration: int, variant: str, selector: str
) -> None:
    method, labeled, unlabeled = tiny("ac_mt", classes, channels=2, variant=variant, selector=selector)
    at, again = step(iteration, 10), torch.Generator().manual_seed(0)
    losses = method.losses(labeled, unlabeled, at)

    image = naive.numpy(unlabeled.image)
    student = naive.probs(method.net, image)
    sup = naive.ce_dice(naive.probs(method.net, naive.numpy(labeled.image)), labeled.label.numpy(), 0)
    target = naive.probs(method.teacher, image + naive.noise(image.shape, again))
    judged = student
    if selector == "model_uncertainty":
        judged = np.zeros_like(student)
        for _ in range(4):
            twice = np.concatenate([image, image])
            both = naive.probs(method.teacher, twice + naive.noise(twice.shape, again))
            judged = judged + (both[:2] + both[2:]) / 8
    limit = 0.75 + FINAL_CHANGE[variant, selector] * naive.ramp(iteration / 10)
    total, selected = 0.0, 0
    for b, x, y, z in np.ndindex(image.shape[:1] + image.shape[2:]):
        voxel = (b, slice(None), x, y, z)
        if -sum(p * math.log(p + 1e-6) for p in judged[voxel]) / math.log(classes) >= limit:
            selected += 1
            total += sum((p - q) ** 2 for p, q in zip(student[voxel], target[voxel], strict=True))
    ramp = math.floor(iteration / 7.5 * 40) / 40
    expected = 0.1 * naive.ramp(ramp) * total / (classes * selected)

    assert losses["sup"].item() == pytest.approx(sup, abs=1e-9)
    assert losses["consistency"].item() == pytest.approx(expected, rel=1e-6, abs=0) and expected > 0
    assert 0 < selected < student.size // classes
    assert at.notes["ambiguous_share"].item() == pytest.approx(selected * classes / student.size)


def test_sure_voxels_teach_nothing(tiny: Factory, step: Factory) -> None:
    method, labeled, unlabeled = tiny("ac_mt")
    with torch.no_grad():
        method.net.head.bias.copy_(torch.tensor([50.0, -50.0]))
    at = step(5)
    losses = method.losses(labeled, unlabeled, at)
    assert losses["consistency"].item() == 0 and at.notes["ambiguous_share"].item() == 0
    sum(losses.values()).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in method.net.head.parameters())


def test_gradient_of_the_logits(tiny: Factory, step: Factory, naive: Any) -> None:
    """Although the mask is made from the student, it is a constant: only (p - q)^2 is differentiated."""
    method, labeled, unlabeled = tiny("ac_mt", 3, threshold_start=0.95)
    outputs: list[torch.Tensor] = []
    method.net.head.register_forward_hook(lambda _, __, output: outputs.append(output))
    targets: list[torch.Tensor] = []
    method.teacher.head.register_forward_hook(lambda _, __, output: targets.append(output))
    at = step(9, 10)
    loss = method.losses(labeled, unlabeled, at)["consistency"]
    (gradient,) = torch.autograd.grad(loss, outputs[0])
    p, q = (torch.softmax(z.detach(), dim=1) for z in (outputs[0][2:], targets[0]))
    entropy = -(p * (p + 1e-6).log()).sum(dim=1, keepdim=True) / math.log(3)
    mask = (entropy >= at.notes["threshold"]).double()
    slope = 2 * (p - q) * mask / (3 * mask.sum())
    expected = 0.1 * p * (slope - (slope * p).sum(dim=1, keepdim=True))
    assert 0 < mask.mean() < 1 and bool((gradient[:2] == 0).all())
    torch.testing.assert_close(gradient[2:], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("selector", ["entropy", "model_uncertainty"])
def test_parameters_and_passes(step: Factory, selector: str) -> None:
    torch.manual_seed(0)
    options = {"selector": selector, "threshold_start": 0.2}
    method = create("ac_mt", options, NetFactory(1, 3, width=2, dropout=0.0))
    sizes: dict[str, list[int]] = {"net": [], "teacher": []}
    for name, seen in sizes.items():
        getattr(method, name).encoder.register_forward_hook(
            lambda _, x, __, seen=seen: seen.append(len(x[0]))
        )
    image = torch.randn(4, 1, 16, 16, 16)
    labeled = Batch(image[:2], torch.zeros(2, 16, 16, 16).long())
    method.losses(labeled, Batch(image[2:], None), step(5))["consistency"].backward()
    assert sizes == {"net": [4], "teacher": [2] + [4] * (4 if selector == "model_uncertainty" else 0)}
    for name, parameter in method.net.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())

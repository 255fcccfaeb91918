"""UA-MT: published schedule, terms against NumPy, gradients, the passes of the teacher, the EMA teacher."""

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


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("iteration", [0, 6, 10])
@pytest.mark.parametrize("options", [{}, {"distance": "kl"}, {"consistency_on_labeled": True}, {"passes": 2}])
def test_against_numpy(
    tiny: Factory, step: Factory, naive: Any, classes: int, iteration: int, options: dict[str, Any]
) -> None:
    method, labeled, unlabeled = tiny("ua_mt", classes, channels=2, **options)
    at, again = step(iteration, 10), torch.Generator().manual_seed(0)
    losses = method.losses(labeled, unlabeled, at)

    image = naive.numpy(torch.cat([labeled.image, unlabeled.image]))
    student = naive.probs(method.net, image)
    sup = naive.ce_dice(student[:2], labeled.label.numpy(), 1)
    if not options.get("consistency_on_labeled"):
        image, student = image[2:], student[2:]
    target = naive.probs(method.teacher, image + naive.noise(image.shape, again))
    passes = []
    for _ in range(options.get("passes", 8) // 2):
        twice = np.concatenate([image, image])
        both = naive.probs(method.teacher, twice + naive.noise(twice.shape, again))
        passes += [both[: len(image)], both[len(image) :]]
    average = sum(passes) / len(passes)
    limit = (0.75 + 0.25 * naive.ramp(iteration / 10)) * math.log(classes)
    total, selected = 0.0, 0
    for b, x, y, z in np.ndindex(image.shape[:1] + image.shape[2:]):
        voxel = (b, slice(None), x, y, z)
        if -sum(p * math.log(p + 1e-6) for p in average[voxel]) < limit:
            selected += 1
            pairs = list(zip(student[voxel], target[voxel], strict=True))
            if options.get("distance") == "kl":
                total += sum(q * math.log(q / p) for p, q in pairs)
            else:
                total += sum((p - q) ** 2 for p, q in pairs)
    expected = 0.1 * naive.ramp(4 * iteration / 40) * total / (classes * selected + 1e-16)

    assert losses.keys() == {"sup", "consistency"}
    assert losses["sup"].item() == pytest.approx(sup, abs=1e-9)
    assert losses["consistency"].item() == pytest.approx(expected, rel=1e-6, abs=0) and expected > 0
    assert at.notes["certain_share"].item() == pytest.approx(selected * classes / student.size)
    assert (selected * classes < student.size) == (iteration < 10)


def test_at_the_end_of_the_run_every_voxel_is_followed(tiny: Factory, step: Factory) -> None:
    """The entropy of equal probabilities is log 2 - 2e-6, below the last threshold log 2."""
    method, labeled, unlabeled = tiny("ua_mt")
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.zero_()
    at = step(10, 10)
    method.losses(labeled, unlabeled, at)
    assert at.notes["certain_share"].item() == 1
    at = step(9, 10)
    loss = method.losses(labeled, unlabeled, at)["consistency"]
    assert at.notes["certain_share"].item() == 0 and loss.item() == 0


def test_gradient_of_the_consistency(step: Factory) -> None:
    """It trains all of the student, from unlabeled patches, and nothing of the teacher."""
    torch.manual_seed(0)
    method = create("ua_mt", {"threshold_start": 1.0}, NetFactory(1, 3, width=2, dropout=0.0))
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    labeled = Batch(torch.randn(2, 1, 16, 16, 16), torch.zeros(2, 16, 16, 16).long())
    unlabeled = Batch(torch.randn(2, 1, 16, 16, 16), None)
    logits: list[torch.Tensor] = []
    method.net.register_forward_hook(lambda _, __, output: logits.append(output))
    loss = method.losses(labeled, unlabeled, step(5))["consistency"]
    (gradient,) = torch.autograd.grad(loss, logits[0], retain_graph=True)
    assert bool((gradient[:2] == 0).all()) and bool((gradient[2:] != 0).any())
    loss.backward()
    for name, parameter in method.net.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())


def test_gradient_of_the_logits(tiny: Factory, step: Factory, naive: Any) -> None:
    """Target and mask are constants: d/dp of M (p - q)^2 / (K sum M), and nothing else."""
    method, labeled, unlabeled = tiny("ua_mt", 3)
    outputs: list[torch.Tensor] = []
    method.net.head.register_forward_hook(lambda _, __, output: outputs.append(output))
    targets: list[torch.Tensor] = []
    method.teacher.head.register_forward_hook(lambda _, __, output: targets.append(output))
    at = step(8, 10)
    loss = method.losses(labeled, unlabeled, at)["consistency"]
    (gradient,) = torch.autograd.grad(loss, outputs[0])
    p, q = (torch.softmax(z.detach(), dim=1) for z in (outputs[0][2:], targets[0]))
    average = sum(torch.softmax(z, dim=1)[:2] + torch.softmax(z, dim=1)[2:] for z in targets[1:]) / 8
    entropy = -(average * (average + 1e-6).log()).sum(dim=1, keepdim=True)
    mask = (entropy < at.notes["threshold"] * math.log(3)).double()
    slope = 2 * (p - q) * mask / (3 * mask.sum())
    expected = 0.1 * naive.ramp(0.8) * p * (slope - (slope * p).sum(dim=1, keepdim=True))
    assert 0 < mask.mean() < 1
    torch.testing.assert_close(gradient[2:], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("options", "taught"), [({}, 2), ({"consistency_on_labeled": True}, 4)])
def test_forward_passes(step: Factory, options: dict[str, Any], taught: int) -> None:
    """One pass of the student over everything; of the teacher one for the target and eight, two a call."""
    method = create("ua_mt", options, NetFactory(1, 2, width=2))
    sizes: dict[str, list[int]] = {"net": [], "teacher": []}
    for name, seen in sizes.items():
        getattr(method, name).encoder.register_forward_hook(
            lambda _, x, __, seen=seen: seen.append(len(x[0]))
        )
    image = torch.randn(4, 1, 16, 16, 16)
    method.losses(Batch(image[:2], torch.zeros(2, 16, 16, 16).long()), Batch(image[2:], None), step())
    assert sizes == {"net": [4], "teacher": [taught] + [2 * taught] * 4}


@pytest.mark.parametrize(
    ("iteration", "decay"), [(0, 0), (1, 0.5), (9, 0.9), (98, 0.98990), (99, 0.99), (500, 0.99)]
)
def test_teacher_is_the_average_of_the_student(step: Factory, iteration: int, decay: float) -> None:
    """Parameters only: the statistics of batch normalisation are the teacher's own."""
    method = create("ua_mt", {}, NetFactory(1, 2, width=2))
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.fill_(1.0)
        for parameter in method.net.parameters():
            parameter.zero_()
        method.net(torch.randn(2, 1, 16, 16, 16))
    before = {name: buffer.clone() for name, buffer in method.teacher.named_buffers()}
    method.after_step(step(iteration, 6000))
    for parameter in method.teacher.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, decay), atol=1e-5, rtol=0)
    assert all(torch.equal(before[name], buffer) for name, buffer in method.teacher.named_buffers())


@pytest.mark.parametrize("name", ["ua_mt", "cpcl", "ac_mt"])
def test_the_student_predicts(name: str) -> None:
    method = create(name, {}, NetFactory(2, 3, width=2)).eval()
    image = torch.randn(1, 2, 16, 32, 16)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.fill_(torch.nan)
        torch.testing.assert_close(method.predict(image), torch.softmax(method.net(image), dim=1))
    assert list(method.predict_members(image)) == ["student", "teacher"]

"""`ua_mt` and `ac_mt`: terms against NumPy, gradients, the passes of the teacher, the EMA teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradients import trained_by

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.nets import NetFactory

Factory = Callable[..., Any]
UA_MT: list[dict[str, Any]] = [{}, {"distance": "kl"}, {"consistency_on_labeled": True}, {"passes": 2}]
AC_MT: list[dict[str, Any]] = [
    {"variant": variant, "selector": selector}
    for variant in ("paper", "released")
    for selector in ("entropy", "model_uncertainty")
]


def followed(name: str, options: dict[str, Any], entropy: float, ramp: float) -> bool:
    """Whether a voxel of this entropy, as a share of log K, counts."""
    if name == "ua_mt":
        return entropy < 0.75 + 0.25 * ramp
    released = 0.20 if options["selector"] == "entropy" else 0.15
    return entropy >= 0.75 + (released if options["variant"] == "released" else -0.15) * ramp


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("iteration", [0, 6, 9, 10])
@pytest.mark.parametrize(
    ("name", "options"), [*(("ua_mt", one) for one in UA_MT), *(("ac_mt", one) for one in AC_MT)]
)
def test_against_numpy(
    tiny: Factory, step: Factory, naive: Any, classes: int, iteration: int, name: str, options: dict[str, Any]
) -> None:
    method, labeled, unlabeled = tiny(name, classes, channels=2, **options)
    at, again = step(iteration, 10), torch.Generator().manual_seed(0)
    losses = method.losses(labeled, unlabeled, at)

    image = naive.numpy(torch.cat([labeled.image, unlabeled.image]))
    student = naive.probs(method.net, image)
    sup = naive.ce_dice(student[:2], labeled.label.numpy(), 1 if name == "ua_mt" else 0)
    if not options.get("consistency_on_labeled"):
        image, student = image[2:], student[2:]
    target = naive.probs(method.teacher, image + naive.noise(image.shape, again))
    judged = student
    if options.get("selector") != "entropy":
        passes = []
        for _ in range(options.get("passes", 8) // 2):
            twice = np.concatenate([image, image])
            both = naive.probs(method.teacher, twice + naive.noise(twice.shape, again))
            passes += [both[: len(image)], both[len(image) :]]
        judged = sum(passes) / len(passes)
    total, selected = 0.0, 0
    for b, x, y, z in np.ndindex(image.shape[:1] + image.shape[2:]):
        voxel = (b, slice(None), x, y, z)
        entropy = -sum(p * math.log(p + 1e-6) for p in judged[voxel]) / math.log(classes)
        if followed(name, options, entropy, naive.ramp(iteration / 10)):
            selected += 1
            pairs = list(zip(student[voxel], target[voxel], strict=True))
            if options.get("distance") == "kl":
                total += sum(q * math.log(q / p) for p, q in pairs)
            else:
                total += sum((p - q) ** 2 for p, q in pairs)
    done = iteration / 10 if name == "ua_mt" else math.floor(min(iteration / 7.5, 1) * 40) / 40
    expected = 0.1 * naive.ramp(done) * total / (classes * selected)

    assert losses.keys() == {"sup", "consistency"}
    assert losses["sup"].item() == pytest.approx(sup, abs=1e-9)
    assert losses["consistency"].item() == pytest.approx(expected, rel=1e-6, abs=0) and expected > 0
    share = at.notes["certain_share" if name == "ua_mt" else "ambiguous_share"].item()
    assert share == pytest.approx(selected * classes / student.size)
    assert (share < 1) == (name == "ac_mt" or iteration < 10)


@pytest.mark.parametrize(
    ("name", "options", "iteration"), [("ua_mt", {}, 8), ("ac_mt", {"threshold_start": 0.95}, 9)]
)
def test_gradient_of_the_logits(
    tiny: Factory, step: Factory, naive: Any, name: str, options: dict[str, Any], iteration: int
) -> None:
    """Target and mask, also one made from the student, are constants: d/dp of M (p - q)^2 / (K sum M)."""
    method, labeled, unlabeled = tiny(name, 3, **options)
    outputs: list[torch.Tensor] = []
    method.net.head.register_forward_hook(lambda _, __, output: outputs.append(output))
    targets: list[torch.Tensor] = []
    method.teacher.head.register_forward_hook(lambda _, __, output: targets.append(output))
    loss = method.losses(labeled, unlabeled, at := step(iteration, 10))["consistency"]
    (gradient,) = torch.autograd.grad(loss, outputs[0])
    p, q = (torch.softmax(z.detach(), dim=1) for z in (outputs[0][2:], targets[0]))
    judged: Any = p
    if name == "ua_mt":
        judged = sum(torch.softmax(z, dim=1)[:2] + torch.softmax(z, dim=1)[2:] for z in targets[1:]) / 8
    entropy = -(judged * (judged + 1e-6).log()).sum(dim=1, keepdim=True) / math.log(3)
    sure = entropy < at.notes["threshold"]
    mask = (sure if name == "ua_mt" else ~sure).double()
    slope = 2 * (p - q) * mask / (3 * mask.sum())
    expected = at.notes["weight"] * p * (slope - (slope * p).sum(dim=1, keepdim=True))
    assert 0 < mask.mean() < 1 and bool((gradient[:2] == 0).all())
    torch.testing.assert_close(gradient[2:], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("ua_mt", {"threshold_start": 1.0}, [2, 4, 4, 4, 4]),
        ("ua_mt", {"threshold_start": 1.0, "consistency_on_labeled": True}, [4, 8, 8, 8, 8]),
        ("ac_mt", {"threshold_start": 0.2}, [2]),
        ("ac_mt", {"threshold_start": 0.2, "selector": "model_uncertainty"}, [2, 4, 4, 4, 4]),
    ],
)
def test_parameters_and_passes(step: Factory, name: str, options: dict[str, Any], sizes: list[int]) -> None:
    """One pass of the student over everything; of the teacher one for the target and eight, two a call.

    The consistency trains all of the student and nothing of the teacher.
    """
    torch.manual_seed(0)
    method = create(name, options, NetFactory(1, 3, width=2, dropout=0.0))
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    seen: dict[str, list[int]] = {"net": [], "teacher": []}
    for part, own in seen.items():
        getattr(method, part).encoder.register_forward_hook(lambda _, x, __, own=own: own.append(len(x[0])))
    image = torch.randn(4, 1, 16, 16, 16)
    labeled = Batch(image[:2], torch.zeros(2, 16, 16, 16).long())
    loss = method.losses(labeled, Batch(image[2:], None), step(5))["consistency"]
    assert seen == {"net": [4], "teacher": sizes}
    assert trained_by(loss, method) == {f"net.{key}" for key, _ in method.net.named_parameters()}
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_sure_voxels_teach_nothing(tiny: Factory, step: Factory) -> None:
    method, labeled, unlabeled = tiny("ac_mt")
    with torch.no_grad():
        method.net.head.bias.copy_(torch.tensor([50.0, -50.0]))
    at = step(5)
    losses = method.losses(labeled, unlabeled, at)
    assert losses["consistency"].item() == 0 and at.notes["ambiguous_share"].item() == 0
    sum(losses.values()).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in method.net.head.parameters())


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

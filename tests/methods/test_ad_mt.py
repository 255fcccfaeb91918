"""AD-MT: turns, published schedules, terms against NumPy, modes, averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from semivox.losses.mixing import cutmix_boxes
from semivox.losses.prediction import Prediction
from semivox.methods import create
from semivox.methods.ad_mt import Taught, turn
from semivox.methods.base import Batch
from semivox.methods.strong_views import jitter
from semivox.nets import NetFactory

Factory = Callable[..., Any]
OF_TEACHER = [next(i for i in range(100) if turn(i, 19) == teacher) for teacher in (0, 1)]


def test_turns_change_after_one_to_nineteen_iterations_each_as_likely() -> None:
    turns = np.array([turn(i, 19) for i in range(6000)])
    lengths = np.diff(np.flatnonzero(np.diff(turns, prepend=1 - turns[0])))
    counts = np.bincount(lengths, minlength=20)
    assert turns[0] == 0 and counts[0] == 0 and len(counts) == 20
    assert counts[1:].min() > 0.5 * len(lengths) / 19 and counts.max() < 1.6 * len(lengths) / 19
    assert turns.mean() == pytest.approx(0.5, abs=0.03)
    assert [turn(i, 1) for i in range(4)] == [0, 1, 0, 1]


def test_published_decays_and_averaged_statistics(step: Factory) -> None:
    """0 up to iteration 81, then 1/2, at last 0.99; only the teacher whose turn it is moves."""
    method: Any = create("ad_mt", {}, NetFactory(1, 2, width=2))
    steps = ((0, 0), (79, 0), (81, 0), (82, 1 / 2), (83, 1 / 2), (84, 2 / 3), (276, 98 / 99), (9999, 0.99))
    for iteration, decay in steps:
        with torch.no_grad():
            for net, value in ((method.net, 1.0), (method.teacher, 3.0), (method.second_teacher, 3.0)):
                for tensor in (*net.parameters(), *net.buffers()):
                    tensor.fill_(value)
        method.after_step(step(iteration, 15000))
        active = turn(iteration, 19)
        moved = method.teachers[active]
        floats = [*moved.parameters(), *(b for b in moved.buffers() if b.is_floating_point())]
        assert len(floats) > len(list(moved.parameters()))
        for tensor in floats:
            torch.testing.assert_close(tensor, torch.full_like(tensor, 1 + 2 * decay))
        assert all(bool((tensor == 3).all()) for tensor in method.teachers[1 - active].state_dict().values())


def test_the_surer_teacher_weighs_more() -> None:
    """Entropies of 0 and 1 bit: weights 0.731059 and 0.268941."""
    sure = Prediction.of(torch.tensor([0.0, 60.0]).view(1, 2, 1, 1, 1))
    torn = Prediction.of(torch.tensor([0.0, 0.0]).view(1, 2, 1, 1, 1))
    for taught in (Taught.of(sure, torn), Taught.of(torn, sure)):
        assert taught.label.item() == 1 and taught.conflict.item()
        assert taught.confidence.item() == pytest.approx(0.731059 + 0.268941 / 2, abs=1e-6)


def test_the_student_corrects_only_conflicts_it_is_surer_of() -> None:
    def flat(*values: Any) -> torch.Tensor:
        return torch.tensor(values).view(1, -1, 1, 1)

    taught = Taught(flat(1, 1, 1, 1), flat(0.7, 0.7, 0.7, 0.7), flat(True, False, True, True))
    probs = torch.tensor([[0.9, 0.9, 0.6, 0.1], [0.1, 0.1, 0.4, 0.9]]).view(1, 2, 4, 1, 1)
    found = taught.corrected(Prediction.of(probs.log()))
    assert found.label.flatten().tolist() == [0, 1, 1, 1]
    assert found.confidence.flatten().tolist() == pytest.approx([0.9, 0.7, 0.7, 0.7])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("iteration", OF_TEACHER)
def test_against_numpy(
    tiny: Factory, step: Factory, naive: Any, classes: int, variant: str, iteration: int
) -> None:
    method, labeled, unlabeled = tiny("ad_mt", classes, unlabeled=3, channels=2, variant=variant)
    losses = method.losses(labeled, unlabeled, at := step(iteration, 100))

    image, again = naive.numpy(unlabeled.image), torch.Generator().manual_seed(0)
    q = [naive.probs(net, image) for net in method.teachers]
    h = [-(p * np.log2(p)).sum(axis=1, keepdims=True) for p in q]
    w = np.exp(-h[0]) / (np.exp(-h[0]) + np.exp(-h[1]))
    mean = w * q[0] + (1 - w) * q[1]
    t, k, conflict = mean.argmax(axis=1), mean.max(axis=1), q[0].argmax(axis=1) != q[1].argmax(axis=1)
    student = naive.probs(method.net, image)
    s, k_s = student.argmax(axis=1), student.max(axis=1)

    def correct() -> tuple[np.ndarray, np.ndarray]:
        surer = conflict & (s != t) & (k_s > k)
        assert surer.any()
        return np.where(surer, s, t), np.where(surer, k_s, k)

    if variant == "paper" or iteration == OF_TEACHER[0]:
        t, k = correct()
    if iteration == OF_TEACHER[0]:
        strong = naive.numpy(jitter(unlabeled.image, again))
    else:
        order = torch.randperm(3, generator=again).numpy()
        inside = cutmix_boxes(3, (8, 8, 8), again).numpy()
        t, k, conflict = (np.where(inside, x[order], x) for x in (t, k, conflict))
        strong = np.where(inside[:, None], image[order], image)
        if variant == "released":
            t, k = correct()
    assert not np.array_equal(strong, image)
    p = np.take_along_axis(naive.probs(method.net, strong), t[:, None], axis=1)[:, 0]
    expected = 2 * naive.ramp(iteration / 40) * -np.log(p[k >= 0.8]).mean()
    sup = naive.ce_dice(naive.probs(method.net, naive.numpy(labeled.image)), labeled.label.numpy(), 0)

    assert losses["pseudo"].item() == pytest.approx(expected, rel=1e-5) and expected > 0
    assert losses["sup"].item() == pytest.approx(sup, abs=1e-9)
    assert at.notes["teacher"].item() == 1 + turn(iteration, 19)
    assert (
        at.notes["sure_share"].item() == pytest.approx((k >= 0.8).mean()) and 0.1 < (k >= 0.8).mean() < 0.95
    )
    assert at.notes["conflict_share"].item() == pytest.approx(conflict.mean())


def test_variants_differ_in_turns_of_teacher_2_alone(tiny: Factory, step: Factory) -> None:
    for iteration, alike in zip(OF_TEACHER, (True, False), strict=True):
        values = set()
        for variant in ("paper", "released"):
            method, labeled, unlabeled = tiny("ad_mt", unlabeled=3, variant=variant)
            values.add(method.losses(labeled, unlabeled, step(iteration, 100))["pseudo"].item())
        assert (len(values) == 1) == alike


@pytest.mark.parametrize("active", [0, 1])
def test_modes_passes_and_gradients(step: Factory, active: int) -> None:
    """One teacher in training mode, the other one with running statistics; only the strong view learns."""
    torch.manual_seed(0)
    method: Any = create("ad_mt", {"threshold": 0.0}, NetFactory(1, 3, width=2, dropout=0.0))
    seen: dict[str, list[tuple[int, bool]]] = {name: [] for name in ("net", "teacher", "second_teacher")}
    outputs: list[torch.Tensor] = []
    for name, calls in seen.items():
        getattr(method, name).register_forward_hook(
            lambda net, x, _, calls=calls: calls.append((len(x[0]), net.training))
        )
    method.net.head.register_forward_hook(lambda _, __, output: outputs.append(output))
    image = torch.randn(4, 1, 16, 16, 32)
    labeled = Batch(image[:2], torch.zeros(2, 16, 16, 32).long())
    losses = method.losses(labeled, Batch(image[2:], None), step(OF_TEACHER[active]))
    assert seen == {"net": [(6, True)], "teacher": [(2, active == 0)], "second_teacher": [(2, active == 1)]}
    assert all(module.training for module in method.modules())
    (gradient,) = torch.autograd.grad(losses["pseudo"], outputs[0], retain_graph=True)
    assert bool((gradient[:4] == 0).all()) and bool((gradient[4:] != 0).flatten(1).any(dim=1).all())
    sum(losses.values()).backward()
    for name, parameter in method.net.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name
    teachers = [p for net in method.teachers for p in net.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in teachers)


def test_the_diagnosis_shows_what_is_taught(tiny: Factory, step: Factory) -> None:
    method, labeled, unlabeled = tiny("ad_mt", 3, labeled=0)
    found = method.pseudo_labels(unlabeled.image)
    assert list(found) == ["student", "teacher_1", "teacher_2", "taught"]
    label, valid = found["taught"].label, found["taught"].valid
    logits = method.net(jitter(unlabeled.image, torch.Generator().manual_seed(0)))
    values = torch.nn.functional.cross_entropy(logits, label, reduction="none")[valid]
    losses = method.losses(labeled, unlabeled, at := step(0, 10))
    assert losses["pseudo"].item() == pytest.approx(
        at.notes["weight"].item() * values.mean().item(), rel=1e-5
    )
    assert valid.float().mean().item() == pytest.approx(at.notes["sure_share"].item())


def test_no_confident_voxel_teaches_nothing(tiny: Factory, step: Factory) -> None:
    method, labeled, unlabeled = tiny("ad_mt", gain=0.01)
    losses = method.losses(labeled, unlabeled, at := step(OF_TEACHER[0], 10))
    assert losses["pseudo"].item() == 0 and at.notes["sure_share"].item() == 0

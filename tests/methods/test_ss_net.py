"""`ss_net`: memory and contrast against loops, the adversarial passes, and what each term trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from gradients import trained_by
from torch import Tensor, nn

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.ss_net import overlap_loss, unit, virtual_adversarial_loss
from semivox.nets import NetFactory

Factory = Callable[..., Any]
SHAPE = (5, 4, 3)
HEADS = ("projection", "prediction", "selectors", "memory_selectors")


class Fixed(nn.Module):
    """A network whose features and logits are given; the logits do not depend on the image."""

    def __init__(self, features: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.feature_map, self.logit_map = nn.Parameter(features), nn.Parameter(logits)
        self.num_classes = logits.shape[1]

    def features(self, image: Tensor) -> Tensor:
        return self.feature_map

    def head(self, features: Tensor) -> Tensor:
        return self.logit_map

    def forward(self, image: Tensor) -> Tensor:
        return self.logit_map


def fixed(classes: int, *, seed: int = 0, **options: Any) -> tuple[Any, Batch, Batch]:
    """In evaluation mode, where every row passes the heads by itself; all voxels are rows."""
    torch.manual_seed(seed)
    settings = {"rows": 10_000, "power_steps": 0, "dimension": 6, "memory_size": 4, **options}
    method: Any = create("ss_net", settings, NetFactory(1, classes, width=3)).double().eval()
    for part in (*method.selectors, *method.memory_selectors, method.projection, method.prediction):
        part[1].running_mean.normal_()
    features = torch.randn(4, 3, *SHAPE, dtype=torch.float64)
    logits = torch.randn(4, classes, *SHAPE, dtype=torch.float64)
    label = torch.randint(0, classes, (2, *SHAPE))
    method.net = Fixed(features, logits)
    image = torch.randn(4, 1, *SHAPE, dtype=torch.float64)
    return method, Batch(image[:2], label), Batch(image[2:], None)


def tiny(**options: Any) -> tuple[Any, Batch, Batch]:
    torch.manual_seed(0)
    method: Any = create("ss_net", options, NetFactory(1, 3, width=2, dropout=0.0)).train()
    image, label = torch.randn(4, 1, 16, 16, 32), torch.randint(0, 3, (2, 16, 16, 32))
    with torch.no_grad():  # every class is predicted somewhere
        method.net.head[1].bias -= method.net(image).mean(dim=(0, 2, 3, 4))
    return method, Batch(image[:2], label), Batch(image[2:], None)


def sigmoid(head: nn.Module, row: Tensor) -> float:
    return 1 / (1 + math.exp(-head(row.unsqueeze(0)).item()))


def cosine(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


def naive(method: Any, label: Tensor) -> tuple[list[list[list[float]]], float]:
    """The memory, a list of rows a class, and both contrasts together, unweighted."""
    cfg, net = method.config, method.net
    classes, size, released = net.num_classes, cfg.memory_size, cfg.variant == "released"
    features = net.feature_map.detach().movedim(1, -1).reshape(4, -1, 3)
    predicted = net.logit_map.detach().movedim(1, -1).reshape(4, -1, classes).argmax(dim=-1)
    truth = label.reshape(2, -1)
    memory: list[list[list[float]]] = []
    for c in range(classes):
        rows = []
        for b, v in np.ndindex(2, truth.shape[1]):
            if truth[b, v] == c == predicted[b, v] and not (released and c == 0):
                row = method.projection(features[b, v].unsqueeze(0))[0]
                rows.append((sigmoid(method.selectors[c], row), row.tolist()))
        rows.sort(key=lambda pair: pair[0], reverse=not released)
        memory.append([row for _, row in rows[:size]])
    total = 0.0
    for stream, classes_of in ((features[:2], truth), (features[2:], predicted[2:])):
        for c in range(classes):
            own = [
                method.prediction(method.projection(row.unsqueeze(0)))[0] for row in stream[classes_of == c]
            ]
            if len(own) < 2 or len(memory[c]) < 2:
                continue
            a = [sigmoid(method.selectors[c], row) for row in own]
            b = [1.0] * len(memory[c])
            if not released:
                units = [torch.tensor(row, dtype=torch.float64) / math.hypot(*row) for row in memory[c]]
                b = [sigmoid(method.memory_selectors[c], row) for row in units]
            terms = [
                (len(a) * a[i] / sum(a))
                * (len(b) * b[j] / sum(b))
                * (1 - cosine(own[i].tolist(), memory[c][j]))
                for i in range(len(a))
                for j in range(len(b))
            ]
            total += sum(terms) / len(terms) / classes
    return memory, total


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("memory_size", [4, 60])
@torch.no_grad()
def test_contrast_against_loops(step: Factory, classes: int, variant: str, memory_size: int) -> None:
    method, labeled, unlabeled = fixed(classes, variant=variant, memory_size=memory_size)
    losses = method.losses(labeled, unlabeled, step(9))
    memory, contrast = naive(method, labeled.target)
    assert losses["contrast"].item() == pytest.approx(0.1 * contrast, abs=1e-6)
    assert method.filled.sum(dim=1).tolist() == [len(rows) for rows in memory]
    for c, rows in enumerate(memory):
        found = sorted(method.memory[c][method.filled[c]].tolist())
        np.testing.assert_allclose(found, sorted(rows) if rows else np.zeros((0,)), atol=1e-9)


def test_supervised_and_adversarial_terms(step: Factory) -> None:
    """With logits that do not depend on the image, p = q in the adversarial term."""
    method, labeled, unlabeled = fixed(3)
    losses = method.losses(labeled, unlabeled, step(9))
    p = torch.softmax(method.net.logit_map.detach(), dim=1)
    assert losses["vat"].item() == pytest.approx(1 - p.square().sum(dim=1).mean().item(), abs=1e-9)
    dices = []
    for c in (1, 2):
        inside = (labeled.target == c).double()
        overlap, size = (p[:2, c] * inside).sum(), (p[:2, c] + inside).sum()
        dices.append(1 - (2 * overlap.item() + 1e-8) / (size.item() + 1e-8))
    assert losses["sup"].item() == pytest.approx(np.mean(dices), abs=1e-9)
    entropy = torch.nn.functional.cross_entropy(method.net.logit_map[:2], labeled.target).item()
    with_entropy, labeled, unlabeled = fixed(3, ce_weight=2.0)
    found = with_entropy.losses(labeled, unlabeled, step(9))["sup"].item()
    assert found == pytest.approx(np.mean(dices) + 2 * entropy, abs=1e-9)


def test_equal_and_opposite_features(step: Factory) -> None:
    """Only foreground is remembered: distance 2 and a mean over two classes give 1 a stream."""
    for sign, expected in ((1.0, 0.0), (-1.0, 2.0)):
        method, labeled, unlabeled = fixed(2, variant="released")
        with torch.no_grad():
            method.net.feature_map.fill_(1.0)
            method.projection = nn.Linear(3, 6, bias=False).double()
            method.prediction = nn.Linear(6, 6, bias=False).double()
            method.prediction.weight.copy_(sign * torch.eye(6))
        loss = method.losses(labeled, unlabeled, step(9))["contrast"].item()
        assert loss == pytest.approx(0.1 * expected, abs=1e-6)


def test_memory_stays_where_nothing_is_predicted_correctly(step: Factory) -> None:
    method, labeled, unlabeled = fixed(3)
    method.losses(labeled, unlabeled, step(9))
    before, filled = method.memory.clone(), method.filled.clone()
    with torch.no_grad():
        method.net.logit_map[:, 2] -= 100
        method.net.feature_map.normal_()
    method.losses(labeled, unlabeled, step(9))
    assert torch.equal(method.memory[2], before[2]) and torch.equal(method.filled[2], filled[2])
    assert not torch.equal(method.memory[1], before[1])
    assert {"memory", "filled"} <= method.state_dict().keys()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_what_each_term_trains(step: Factory, variant: str) -> None:
    method, labeled, unlabeled = tiny(variant=variant)
    losses = method.losses(labeled, unlabeled, step(9))
    assert all(parameter.grad is None for parameter in method.parameters())

    def parts(loss: Tensor) -> set[str]:
        heads = ("projection", "prediction")
        names = trained_by(loss, method, 2)
        return {name.split(".")[0] if name.startswith(heads) else name for name in names}

    network = {"net.encoder", "net.decoder", "net.head"}
    assert parts(losses["sup"]) == network
    assert parts(losses["vat"]) == network
    heads = {"projection", "prediction", "selectors.1", "selectors.2"}
    if variant == "paper":
        heads |= {"selectors.0", *(f"memory_selectors.{c}" for c in range(3))}
    assert parts(losses["contrast"]) == {"net.encoder", "net.decoder"} | heads


def test_both_streams_are_contrasted(step: Factory) -> None:
    method, labeled, unlabeled = fixed(2)
    loss = method.losses(labeled, unlabeled, step(9))["contrast"]
    gradient = torch.autograd.grad(loss, method.net.feature_map)[0]
    assert (gradient[:2] != 0).any() and (gradient[2:] != 0).any()


def test_four_passes_of_which_two_change_running_statistics(step: Factory) -> None:
    method, labeled, unlabeled = tiny()
    sizes: list[int] = []
    method.net.encoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    before = deepcopy(dict(method.net.named_buffers()))
    method.losses(labeled, unlabeled, step(9))
    assert sizes == [4, 4, 4, 4]
    counters = {
        name: value for name, value in method.net.named_buffers() if name.endswith("num_batches_tracked")
    }
    assert all(value - before[name] == 2 for name, value in counters.items())
    for head in (method.projection, method.prediction, *method.selectors, *method.memory_selectors):
        assert head.training and head[1].num_batches_tracked == 2  # once a stream; not for the memory's rows


def test_half_precision_under_autocast(step: Factory) -> None:
    method, labeled, unlabeled = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.losses(labeled, unlabeled, step(9))
    assert all(loss.dtype == torch.float32 and bool(torch.isfinite(loss)) for loss in losses.values())


def small_net(channels: int = 2, classes: int = 3) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(channels, 4, kernel_size=3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.Conv3d(4, classes, kernel_size=1),
    ).double()


def scene() -> tuple[Any, Tensor, Tensor]:
    """A network in training mode, images, and its prediction as the target."""
    net = small_net()
    image = torch.randn(2, 2, 4, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        return net, image, torch.softmax(net(image), dim=1)


def vat(net: nn.Module, image: Tensor, target: Tensor, seed: int = 0, **options: Any) -> Tensor:
    settings: dict[str, Any] = {"radius": 1.0, "probe_radius": 0.5, "power_steps": 1, **options}
    return virtual_adversarial_loss(
        net, image, target, generator=torch.Generator().manual_seed(seed), **settings
    )


def test_overlap_is_the_linear_dice_over_all_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (
        torch.softmax(torch.randn(2, 3, 3, 2, 4, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    )
    products = sizes = 0.0
    for a, b in zip(p.flatten().tolist(), q.flatten().tolist(), strict=True):
        products, sizes = products + a * b, sizes + a + b
    assert overlap_loss(p, q).item() == pytest.approx(1 - 2 * products / sizes, abs=1e-9)


def test_unit() -> None:
    lengths = unit(torch.randn(3, 2, 4, 4, 4, dtype=torch.float64)).flatten(1).square().sum(dim=1)
    assert lengths.tolist() == pytest.approx([1.0] * 3)
    assert not unit(torch.zeros(1, 1, 2, 2, 2)).any()
    moved = 10 * unit(torch.rand(1, 1, 112, 112, 80) - 0.5)
    assert moved.square().mean().sqrt().item() == pytest.approx(0.0099825, abs=1e-6)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_against_a_second_implementation(steps: int) -> None:
    """Each sample is scaled by hand, gradients come from `backward` on the mean."""
    net, image, target = scene()
    found = vat(net, image, target, power_steps=steps)

    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype) - 0.5
    twin = deepcopy(net)
    direction = noise
    for turn in range(steps + 1):
        scaled = torch.empty_like(direction)
        for sample in range(len(direction)):
            length = math.sqrt(sum(v * v for v in direction[sample].flatten().tolist()))
            scaled[sample] = direction[sample] / length
        if turn == steps:
            break
        probe = scaled.requires_grad_()
        (1 - (torch.softmax(twin(image + 0.5 * probe), dim=1) * target).sum(dim=1)).mean().backward()
        direction = probe.grad
    expected = (1 - (torch.softmax(twin(image + scaled), dim=1) * target).sum(dim=1)).mean()
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_gradient_comes_from_the_last_pass_alone() -> None:
    net, image, target = scene()
    passes: list[Tensor] = []
    hook = net.register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].detach()))
    loss = vat(net, image, target)
    hook.remove()
    assert len(passes) == 2
    assert all(parameter.grad is None for parameter in net.parameters())
    found = torch.autograd.grad(loss, list(net.parameters()))
    expected = torch.autograd.grad(
        overlap_loss(torch.softmax(net(passes[1]), dim=1), target), list(net.parameters())
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert all(bool((gradient != 0).any()) for gradient in found[-2:])


def test_statistics_stay_and_the_probe_works_without_gradients() -> None:
    net, image, target = scene()
    before = deepcopy(net.state_dict())
    with torch.no_grad():
        loss = vat(net, image, target)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, vat(net, image, target).detach())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_moved_image_keeps_its_layout() -> None:
    net = small_net(channels=1)
    image = torch.randn(2, 1, 4, 4, 4, dtype=torch.float64).clone(memory_format=torch.channels_last_3d)
    strides: list[tuple[int, ...]] = []
    net.register_forward_hook(lambda _, inputs, __: strides.append(inputs[0].stride()))
    vat(net, image, torch.full((2, 3, 4, 4, 4), 1 / 3, dtype=torch.float64))
    assert strides == [image.stride()] * 2

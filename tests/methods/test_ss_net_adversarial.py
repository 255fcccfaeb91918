"""Virtual adversarial perturbation."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from semivox.losses.adversarial import frozen_statistics, overlap_loss, unit, virtual_adversarial_loss
from torch import Tensor, nn


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
    with frozen_statistics(net), torch.no_grad():
        return net, image, torch.softmax(net(image), dim=1)


def vat(net: nn.Module, image: Tensor, target: Tensor, seed: int = 0, **options: Any) -> Tensor:
    settings: dict[str, Any] = {"radius": 1.0, "probe_radius": 0.5, "power_steps": 1, **options}
    return virtual_adversarial_loss(
        net, image, target, generator=torch.Generator().manual_seed(seed), **settings
    )


@pytest.mark.parametrize(("first", "loss"), [(0.5, 0.5), (0.9, 0.18), (1.0, 0.0)])
def test_overlap_of_a_prediction_with_itself(first: float, loss: float) -> None:
    p = torch.tensor([first, 1 - first]).view(1, 2, 1, 1, 1).expand(2, 2, 3, 2, 2)
    assert overlap_loss(p, p).item() == pytest.approx(loss)


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


def test_frozen_statistics() -> None:
    net = small_net()
    before = deepcopy(net.state_dict())
    image = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64)
    with frozen_statistics(net):
        frozen = net(image)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.testing.assert_close(net(image), frozen)  # statistics of the batch in either case
    assert not torch.equal(net[1].running_mean, before["1.running_mean"])


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


def test_the_found_direction_is_worse_than_chance() -> None:
    net, image, target = scene()
    chance = [vat(net, image, target, seed, power_steps=0).item() for seed in range(20)]
    assert vat(net, image, target).item() > max(chance)


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

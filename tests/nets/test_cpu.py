"""What PyTorch's CPU kernels need: the same numbers and gradients, and memory that is kept."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semivox.hardware import has_bf16
from semivox.methods import create
from semivox.nets import NetFactory, cpu
from semivox.nets.cpu import Conv, Conv7x7x7, InstanceNorm

CASES = [
    (Conv7x7x7, 1, 2),
    (Conv7x7x7, 1, 8),
    (Conv7x7x7, 1, 16),
    (Conv7x7x7, 1, 20),
    (Conv7x7x7, 3, 4),
    (Conv, 16, 8),
]


def plain(layer: Any) -> nn.Module:
    """PyTorch's own layer with the same weights."""
    same = nn.Conv3d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        padding=layer.padding,
        bias=layer.bias is not None,
    )
    same.load_state_dict(layer.state_dict())
    return same


def results(layer: nn.Module, image: Tensor, seed: int = 0) -> list[Tensor]:
    """Output, gradient of the image, gradients of the parameters."""
    image = image.detach().requires_grad_()
    output = layer(image)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed)).to(output.dtype)
    return [output, *torch.autograd.grad((output * weights).sum(), [image, *layer.parameters()])]


@pytest.mark.parametrize(("kind", "inputs", "channels"), CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("depth", [16, 5])
def test_float64(kind: Any, inputs: int, channels: int, layout: torch.memory_format, depth: int) -> None:
    torch.manual_seed(0)
    layer = kind(inputs, channels).double()
    image = torch.randn(2, inputs, 6, 9, depth, dtype=torch.float64).contiguous(memory_format=layout)
    for own, other in zip(results(layer, image), results(plain(layer).double(), image), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize(("kind", "inputs", "channels"), CASES)
def test_bfloat16(kind: Any, inputs: int, channels: int) -> None:
    """Under autocast, as far from float32 as PyTorch's own layer is; parameters have float32 gradients.

    PyTorch's is off by less than 1 % with bfloat16 instructions and by 2 % without.
    """
    few = 0.02 if has_bf16(torch.device("cpu")) else 0.05
    torch.manual_seed(0)
    layer = kind(inputs, channels)
    image = torch.randn(2, inputs, 8, 12, 16).contiguous(memory_format=torch.channels_last_3d)
    exact = results(plain(layer), image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own, other = results(layer, image), results(plain(layer), image)
    assert own[0].dtype == torch.bfloat16
    for mine, theirs, right in zip(own, other, exact, strict=True):
        assert mine.dtype == theirs.dtype
        error, usual = (mine - right).norm(), (theirs - right).norm()
        assert error < 2 * usual < few * right.norm()


@pytest.mark.parametrize(("kind", "inputs", "channels"), CASES)
@pytest.mark.parametrize("half", [False, True])
def test_answers_in_channels_last(kind: Any, inputs: int, channels: int, half: bool) -> None:
    """The next layer would convert the map otherwise."""
    if half and not has_bf16(torch.device("cpu")):
        pytest.skip("without bfloat16 instructions PyTorch's own kernels answer in the other layout")
    layer = kind(inputs, channels).to(memory_format=torch.channels_last_3d)
    image = torch.randn(2, inputs, 8, 8, 16).clone(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        assert layer(image).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="a way for x86 only")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_single_small_map_avoids_the_slow_kernel(stride: int, bias: bool) -> None:
    """Which PyTorch takes for it, forward and backward."""
    layer = Conv(16, 8, stride=stride, bias=bias).to(memory_format=torch.channels_last_3d)
    image = torch.randn(1, 16, 6, 8, 7).contiguous(memory_format=torch.channels_last_3d)
    found, names = [], []
    for one in (layer, plain(layer)):
        with torch.profiler.profile() as profile:
            found.append(results(one, image))
        names.append({event.key for event in profile.key_averages() if "slow_conv3d" in event.key})
    assert names[0] == set() != names[1]
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
    assert found[0][0].is_contiguous(memory_format=torch.channels_last_3d)


BLOCK = 2**26  # bytes

needs_glibc = pytest.mark.skipif(cpu._glibc() is None, reason="only with the C library of Linux")


IN_A_FRESH_PROCESS = f"""
import resource
from pathlib import Path
import numpy as np
from semivox.nets import cpu

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def block():
    return np.ones({BLOCK}, np.uint8)

def grown():
    for _ in range(8):  # alignment leaves small rests between them at first
        block()
    waiting = resident()
    again = block()
    return resident() - waiting

print(grown())
before = resident()
with cpu.kept():
    with cpu.kept():
        print(grown())
    print(resident() - before, cpu.idle())
print(resident() - before, cpu.idle())
"""


@needs_glibc
def test_freed_memory_waits_until_the_outermost_block_ends():
    """In a process where nothing else has used the memory."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS], check=True, capture_output=True, text=True
    )
    plain, kept, held, idle, rest, nothing = map(int, done.stdout.split())
    assert plain > BLOCK * 3 / 4 and kept < BLOCK / 4
    assert held > BLOCK * 3 / 4 and idle > BLOCK * 3 / 4
    assert rest < BLOCK / 4 and nothing == 0


def test_nothing_happens_where_there_is_no_glibc(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with cpu.kept():
        assert cpu.idle() == 0
        assert cpu._depth == 0


def test_it_ends_with_an_error():
    with pytest.raises(ValueError, match="stop"), cpu.kept():
        raise ValueError("stop")
    assert cpu._depth == 0


def test_results_are_the_same():
    net = create("supervised_pair", {}, NetFactory(1, 2, width=4)).eval()
    image = torch.randn(1, 1, 32, 32, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = net.predict(image)
        with cpu.kept():
            assert torch.equal(net.predict(image), plain)


LAST = torch.channels_last_3d


def batch_of(samples: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(samples)
    return (5 + 3 * torch.randn(samples, 4, 6, 5, 3, generator=generator)).to(dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_same_numbers_and_gradients(samples: int, training: bool) -> None:
    found = []
    for layer, image in (
        (InstanceNorm(4), batch_of(samples).to(memory_format=LAST)),
        (nn.InstanceNorm3d(4), batch_of(samples)),
    ):
        image.requires_grad_()
        result = layer.train(training)(image)
        result.pow(3).sum().backward()
        found.append((result.detach(), image.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_memory_layout_stays(samples: int) -> None:
    image = batch_of(samples, torch.bfloat16).to(memory_format=LAST).requires_grad_()
    result = InstanceNorm(4)(image)
    assert result.is_contiguous(memory_format=LAST)
    assert result.dtype == torch.bfloat16
    result.sum().backward()
    assert image.grad.is_contiguous(memory_format=LAST)
    assert InstanceNorm(4)(batch_of(samples)).is_contiguous()


def test_no_samples_and_too_few_voxels() -> None:
    assert InstanceNorm(4)(torch.empty(0, 4, 2, 2, 2).to(memory_format=LAST)).shape == (0, 4, 2, 2, 2)
    with pytest.raises(ValueError, match="more than 1"):
        InstanceNorm(4)(torch.ones(2, 4, 1, 1, 1).to(memory_format=LAST))

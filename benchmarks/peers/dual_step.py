"""One training step of `dual` written straight from the formulas; frozen, uses nothing of semivox.

float32, contiguous NCDHW, a softmax and an entropy wherever a formula has one, the percentile by NumPy,
boolean indexing, one optimiser a network. The options are the published ones (no mixtures).

Source: Lu, Wu, Chaddad et al., arXiv 2509.13084, 2025; equation numbers are its.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peers.plain_nets import PlainNet

TAU, TAU_P, BETA, ALPHA, TEMPERATURE, LAMBDA_MAX = 0.6, 0.6, 0.5, 70.0, 0.5, 0.1


class DualStep:
    """Both networks, their optimisers, and the step.

    Args:
        in_channels: of the image.
        classes: background included.
        width: channels of the finest level.
        dropout: of whole channels.
        pull_fraction: share of the uncertain voxels of a class that PGL pulls, at least one.
    """

    def __init__(
        self, *, in_channels: int, classes: int, width: int, dropout: float, pull_fraction: float = 0.01
    ) -> None:
        self.classes, self.pull_fraction = classes, pull_fraction
        self.net_a = PlainNet("resnet34", in_channels, classes, width, dropout)
        self.net_b = PlainNet("vnet", in_channels, classes, width, dropout)
        self.optimizers = [
            torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
            for net in (self.net_a, self.net_b)
        ]

    def step(self, labeled: Tensor, label: Tensor, unlabeled: Tensor, fraction: float) -> dict[str, Tensor]:
        """Losses, backward pass, both optimisers."""
        terms = self.losses(labeled, label, unlabeled, fraction)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return terms

    def losses(self, labeled: Tensor, label: Tensor, unlabeled: Tensor, fraction: float) -> dict[str, Tensor]:
        """Weighted terms at `fraction` of the run; images (B, C, X, Y, Z), label (B, X, Y, Z) int64."""
        n = len(labeled)
        image = torch.cat([labeled, unlabeled])
        z_a, f_a = self.net_a(image)
        z_b, f_b = self.net_b(image)
        t_a, t_b = threshold(z_a[n:]), threshold(z_b[n:])
        ramp = LAMBDA_MAX * math.exp(-5 * (1 - fraction) ** 2)
        pgl_a = self.pgl(z_a[n:], z_a[n:], z_b[n:], f_a[n:])
        pgl_b = self.pgl(z_b[n:], z_a[n:], z_b[n:], f_b[n:])
        return {
            "sup_a": F.cross_entropy(z_a[:n], label) + dice(z_a[:n], label),
            "sup_b": F.cross_entropy(z_b[:n], label) + dice(z_b[:n], label),
            "cr": BETA * consistency(z_a[:n], z_b[:n]),
            "ue": rectified(z_a, z_b) + rectified(z_b, z_a),
            "cps": F.cross_entropy(z_a[n:], pseudo(z_b[n:])) + F.cross_entropy(z_b[n:], pseudo(z_a[n:])),
            "efs": filtered(z_a[n:], z_b[n:], t_a, t_b),
            "pgl": ramp * (pgl_a + pgl_b),
        }

    def pgl(self, own: Tensor, z_a: Tensor, z_b: Tensor, features: Tensor) -> Tensor:
        """Eq. 16-20 for one network: pull to the class, prototypes apart."""
        reliable = z_a.argmax(1) == z_b.argmax(1)
        reliable = reliable & (entropy(z_a) <= threshold(z_a)) & (entropy(z_b) <= threshold(z_b))
        label = own.argmax(1)
        rows = F.normalize(features, dim=1).permute(0, 2, 3, 4, 1)
        prototypes = []
        total = torch.zeros(())
        for c in range(self.classes):
            members = rows[reliable & (label == c)]
            if len(members) == 0:
                continue
            prototype = F.normalize(members.mean(0), dim=0)
            prototypes.append(prototype)
            others = rows[~reliable & (label == c)]
            if len(others):
                count = max(1, round(self.pull_fraction * len(others)))
                drawn = others[torch.randperm(len(others))[:count]]
                total = total + (drawn - prototype.detach()).norm(dim=1).mean()
        distances = [
            (prototypes[i] - prototypes[j]).norm()
            for i in range(len(prototypes))
            for j in range(i + 1, len(prototypes))
        ]
        return total - torch.stack(distances).mean() if distances else total


def dice(z: Tensor, label: Tensor) -> Tensor:
    """Soft Dice loss, mean over foreground classes."""
    p = torch.softmax(z, dim=1)
    losses = []
    for c in range(1, z.shape[1]):
        y = (label == c).float()
        top = 2 * (p[:, c] * y).sum() + 1e-5
        losses.append(1 - top / ((p[:, c] ** 2).sum() + (y**2).sum() + 1e-5))
    return torch.stack(losses).mean()


def entropy(z: Tensor) -> Tensor:
    """Nats, without gradient."""
    return -(torch.softmax(z, dim=1) * torch.log_softmax(z, dim=1)).sum(1).detach()


def threshold(z: Tensor) -> float:
    """Percentile of the entropy over the batch, by NumPy on the host."""
    return float(np.percentile(entropy(z).cpu().numpy().flatten(), ALPHA))


def pseudo(z: Tensor) -> Tensor:
    """Eq. 7: most probable foreground class where it is probable enough, else background."""
    best, index = torch.softmax(z.detach(), dim=1)[:, 1:].max(dim=1)
    return torch.where(best > TAU_P, index + 1, torch.zeros_like(index))


def consistency(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Eq. 4-6: squared error where exactly the confident labels differ."""
    p_a, p_b = torch.softmax(z_a, dim=1), torch.softmax(z_b, dim=1)
    confidence_a, label_a = p_a.max(dim=1)
    confidence_b, label_b = p_b.max(dim=1)
    sure_a, sure_b = label_a * (confidence_a >= TAU), label_b * (confidence_b >= TAU)
    mask = (sure_a != sure_b).float()
    distance = ((p_a[:, 1:] - p_b[:, 1:]) ** 2).sum(1)
    return (mask * distance).sum() / (mask.sum() + 1e-16)


def filtered(z_a: Tensor, z_b: Tensor, t_a: float, t_b: float) -> Tensor:
    """Eq. 9-11: a joint label wherever either network is certain."""
    h_a, h_b, label_a, label_b = entropy(z_a), entropy(z_b), z_a.argmax(1), z_b.argmax(1)
    ignored = (h_a > t_a) & (h_b > t_b)
    target = torch.where(label_a > 0, label_a, label_b)
    conflict = (label_a > 0) & (label_b > 0) & (label_a != label_b)
    target[conflict] = torch.where(h_a <= h_b, label_a, label_b)[conflict]
    target[ignored] = -100
    factor = ignored.numel() / max(1, int((~ignored).sum()))
    return factor * (F.cross_entropy(z_a, target) + F.cross_entropy(z_b, target))


def rectified(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 13-15: the teacher's label, weighted by exp(-D), and D itself."""
    q = torch.softmax(teacher.detach() / TEMPERATURE, dim=1)
    log_q = torch.log_softmax(teacher.detach() / TEMPERATURE, dim=1)
    divergence = (q * (log_q - torch.log_softmax(student, dim=1))).sum(1)
    taught = F.cross_entropy(student, q.argmax(1), reduction="none")
    return (torch.exp(-divergence) * taught).mean() + divergence.mean()

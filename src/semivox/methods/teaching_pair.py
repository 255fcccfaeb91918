"""Two networks that label unlabeled patches for each other, mixed with labeled ones if that is asked for."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semivox.losses.ema import update_ema
from semivox.losses.mixing import cuboid_mask, exchange_masks
from semivox.losses.prediction import Prediction
from semivox.losses.pseudo import Teaching
from semivox.methods.base import Batch, PairMethod, Step, full_precision, with_mixtures, without_dropout
from semivox.nets import NetFactory


class TeachingPair(PairMethod):
    """What the terms of a dual method start from: the images of a step, and what A and B teach there.

    With the defaults A and B see labeled and unlabeled patches as they are and teach by the same pass.
    """

    class Config(PairMethod.Config):
        mix: Literal["none", "paste"] = Field(
            "none",
            description="paste: exchange a cuboid between unlabeled and labeled patches; pseudo-labels are"
            " those of the patches before, and the truth where it is known",
        )
        mix_cuboid: float = Field(2 / 3, gt=0, lt=1, description="side of that cuboid / side of the patch")
        teacher_decay: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="above 0: moving averages of A and B teach, and this share of them stays each step",
        )

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.teachers = nn.ModuleList()

    def build(self, net: NetFactory) -> None:
        """Create A and B, and their averages if these are to teach."""
        super().build(net)
        copies = [deepcopy(one) for one in (self.net_a, self.net_b)] if self.config.teacher_decay else []
        self.teachers = nn.ModuleList(copies).requires_grad_(False)

    def after_step(self, step: Step) -> None:
        """Move the averages; the first steps average over fewer, as `TeacherMethod` does."""
        decay = min(1.0 - 1.0 / (step.iteration + 1), self.config.teacher_decay)
        for teacher, net in zip(self.teachers, (self.net_a, self.net_b), strict=False):  # or no teachers
            update_ema(teacher, net, decay)

    def inputs(
        self, labeled: Batch, unlabeled: Batch, step: Step, alpha: float
    ) -> tuple[Tensor, tuple[Teaching, Teaching] | None]:
        """Images of the step, labeled ones first, and what A and B teach on the others.

        Returns:
            (B, C, X, Y, Z), and None where A and B teach what they say in this pass.
        """
        if not len(unlabeled.image):
            return labeled.image, None
        if self.config.mix == "paste" and len(labeled.image):
            return self._mixtures(labeled, unlabeled, step, alpha)
        images = torch.cat([labeled.image, unlabeled.image])
        return images, self.teachings(unlabeled.image, alpha) if self.config.teacher_decay else None

    def labels_only(self, labeled: Batch, unlabeled: Batch, step: Step) -> tuple[Batch, Batch]:
        """Take no unlabeled patches; with `mix`, mixtures of labeled ones stand beside those themselves."""
        nothing = Batch(unlabeled.image[:0], None)
        if self.config.mix == "none":
            return labeled, nothing
        return with_mixtures(labeled, self.config.mix_cuboid, step), nothing

    @torch.no_grad()
    def teachings(self, image: Tensor, alpha: float, *pasted: Tensor | None) -> tuple[Teaching, Teaching]:
        """What A and B, or their averages, say of whole patches, and the truth that was pasted.

        Dropout is active only where the networks themselves teach, without mixtures: there the published
        pass is the one that learns.
        """
        found = []
        calm = self.config.mix == "paste" or self.config.teacher_decay > 0
        for net in self.teachers or (self.net_a, self.net_b):
            with without_dropout(net) if calm else nullcontext():
                logits = net(image)
            with full_precision(image):
                found.append(Teaching.of(Prediction.of(logits), alpha, *pasted))
        return found[0], found[1]

    def _mixtures(
        self, labeled: Batch, unlabeled: Batch, step: Step, alpha: float
    ) -> tuple[Tensor, tuple[Teaching, Teaching]]:
        count = len(unlabeled.image)
        partner = torch.arange(count, device=unlabeled.image.device) % len(labeled.image)
        mask = cuboid_mask(unlabeled.image.shape[2:], self.config.mix_cuboid, step.generator)
        known = exchange_masks(count, mask)
        mixed = torch.where(known.unsqueeze(1), labeled.image[partner], unlabeled.image)
        truth = labeled.target[partner]
        counted = None if labeled.counted is None else labeled.counted[partner]
        taught = self.teachings(unlabeled.image, alpha, truth, known, counted)
        return torch.cat([labeled.image, mixed]), taught

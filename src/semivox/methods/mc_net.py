"""MC-Net and MC-Net+: mutual consistency between decoders."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import mutual_consistency
from semivox.losses.prediction import Prediction
from semivox.methods.heads import MultiDecoderMethod
from semivox.nets.blocks import UpKind
from semivox.nets.heads import Decoded


class MCNet(MultiDecoderMethod):
    """Two decoders with different up-sampling; each is regressed on the other's sharpened probabilities.

    Where the decoders disagree the image is hard, and there the consistency is felt. With p_i the softmax of
    decoder i and q_i its form sharpened by T,
    L = 0.5 sum_i Dice(p_i, y) + w(t) sum_{i != j} mean (p_i - q_j)^2,
    the second term on labeled and unlabeled patches, with gradient into both p_i and q_j. More than two
    classes are sharpened by softmax(z / T), which is the published form for two.

    Source: Wu et al., "Semi-supervised left atrium segmentation with mutual consistency training", MICCAI
    2021, arXiv 2103.02911. Weights and ramp are those of the released code, which has one recipe for MC-Net
    and MC-Net+: 15000 iterations at a constant learning rate (train.schedule = constant). That code keeps the
    checkpoint with the best Dice on the test list; here the last one counts.
    """

    class Config(MultiDecoderMethod.Config):
        temperature: float = Field(0.1, gt=0, description="T of the sharpening; below 1 sharpens")
        detach_targets: bool = Field(False, description="no gradient through the sharpened probabilities")

    others: ClassVar[tuple[UpKind, ...]] = ("trilinear",)
    term = "consistency"
    config: Config

    def between(self, predictions: list[Prediction], outputs: list[Decoded], count: int) -> Tensor:
        """Regress each decoder on the sharpened form of every other one."""
        cfg = self.config
        return mutual_consistency(predictions, cfg.temperature, detach_targets=cfg.detach_targets)


class MCNetPlus(MCNet):
    """MC-Net with a third decoder that up-samples by the nearest neighbour: six terms of consistency.

    Twice as much consistency for each Dice term as in MC-Net, at the same weight.

    Source: Wu et al., "Mutual consistency learning for semi-supervised medical image segmentation", Medical
    Image Analysis 81, 2022, arXiv 2109.09960. See `MCNet` for the formula and the choice of the checkpoint.
    """

    others: ClassVar[tuple[UpKind, ...]] = ("trilinear", "nearest")

"""What the public code of `dual` computes where it differs from the paper: `variant: released`."""

from __future__ import annotations

import torch
from torch import Tensor

from semivox.losses.consistency import pair_distance, rectified_cross_entropy, tempered_divergence
from semivox.losses.prototypes import class_prototypes, mean_pair_distance
from semivox.losses.pseudo_labels import confident_disagreement
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import both, cross_entropy, masked_mean, mean, onehot
from semivox.methods.base import Batch, Step
from semivox.methods.teaching_pair import View

CONFIDENT, CR_WEIGHT, PGL_WEIGHT, RAMP_STEPS = 0.6, 0.5, 0.1, 40


def released_terms(a: View, b: View, labeled: Batch, step: Step) -> dict[str, Tensor]:
    """Compute the terms beside "sup_a" and "sup_b", with the constants of that code.

    Read at commit d37f1e6 of github.com/AIPMLab/Semi-supervised-Segmentation (`train_LA.py`):

    * "cr" pulls each network to the label where the confident foreground differs.
    * "ue" teaches A by B alone, on all patches; D has no temperature.
    * "cosine", 1 - cosine of the two softmax vectors of each voxel, on all patches; not in the paper.
    * "efs" and "pgl" have a value and no gradient: the first is computed from detached probabilities, which
      are taken for logits, the second without gradients. The entropies are those of logits, NaN as soon as
      one is negative, so that no voxel is filtered and none is left to be pulled to a prototype (a mean over
      nothing, NaN in the log; here 0); the distance between prototypes is added.
    """
    mask = confident_disagreement(a.labeled, b.labeled, CONFIDENT)
    distance = pair_distance(a.labeled, b.labeled, "mse", labeled.target)
    divergence = tempered_divergence(a.whole, b.whole, temperature=1.0)
    cosine = torch.cosine_similarity(a.whole.probs, b.whole.probs, dim=1)
    terms = {
        "cr": CR_WEIGHT * masked_mean(distance, both(mask, labeled.valid)),
        "ue": mean(divergence) + rectified_cross_entropy(a.whole, b.whole, divergence),
        "cosine": mean(1.0 - cosine),
    }
    with torch.no_grad():
        union = torch.maximum(a.unlabeled.label, b.unlabeled.label)
        taken = [torch.log_softmax(own.unlabeled.probs, dim=1) for own in (a, b)]
        terms["efs"] = cross_entropy(taken[0], union) + cross_entropy(taken[1], union)
        weight = PGL_WEIGHT * sigmoid_rampup(step.fraction, RAMP_STEPS)
        terms["pgl"] = weight * 0.5 * (_apart(a, union) + _apart(b, union))
    return terms


def _apart(own: View, label: Tensor) -> Tensor:
    """Compute the distance between the prototypes of the classes."""
    members = onehot(label.flatten().unsqueeze(0), own.whole.num_classes).squeeze(0)
    return mean_pair_distance(class_prototypes(own.features.flatten(0, 1), members), members.any(dim=1))

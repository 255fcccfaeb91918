"""`train --diagnose`: pseudo-labels against the labels that training does not see."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from semivox.datasets.splits import Split
from semivox.evaluation.pseudo import Finding, PseudoQuality
from semivox.methods.base import Method, PseudoLabel
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.workspace import Workspace
from semivox.reporting.diagnosis import save_diagnosis
from semivox.training.diagnosis import Diagnosis
from semivox.training.hidden import read_hidden_patches

PATCHES = 8
NOTICE = "labels of unlabeled cases were opened for diagnosis, never for training"


def make_diagnosis(
    workspace: Workspace, split: Split, plan: Plan, path: Path, *, batch: int, title: str
) -> Diagnosis:
    """Build what `fit` diagnoses with; opens the labels of a handful of unlabeled cases, in memory only.

    Args:
        workspace: with the prepared scans.
        split: the one that hides the labels.
        plan: patch size, grid and classes.
        path: the table to write (CSV); the picture stands beside it.
        batch: patches that go through the networks at once: normalisation sees as many as in training.
        title: of the picture.

    Raises:
        UserError: no unlabeled case has a label file, or one of them cannot be used.
    """
    count = batch * max(1, round(PATCHES / batch))
    hidden = read_hidden_patches(workspace.dataset, split, plan, workspace.store, count)
    parts = [slice(start, start + batch) for start in range(0, count, batch)]
    batches = [(hidden.image[part], hidden.label[part]) for part in parts]

    def measure(method: Method, device: torch.device) -> Iterable[Finding]:
        quality = PseudoQuality(plan.class_names)
        method.eval()
        for image, truth in batches:
            quality.add({"prediction": PseudoLabel.of(method.predict(image.to(device)))}, truth.to(device))
        method.train()
        for image, truth in batches:
            quality.add(method.pseudo_labels(image.to(device)), truth.to(device))
        return quality.findings()

    def draw(table: Path) -> None:
        cases = len(set(hidden.cases))
        subtitle = f"{count} patches of {cases} unlabeled case{'s' if cases > 1 else ''}; {NOTICE}"
        save_diagnosis(table.with_suffix(".png"), table, title=title, subtitle=subtitle)

    return Diagnosis(measure, draw, path)

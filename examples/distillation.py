"""Losses of the literature on public members: a student with further terms, with learnt task weights, or projected.

A config names a class by its import path, from the folder of this file:

    student: {kind: "distillation:WithRelations", preset: light}      # DIST, arXiv 2205.10536
    student: {kind: "distillation:WithChannels", preset: light}       # CWD, arXiv 2011.13256
    student: {kind: "distillation:WithLearntWeights", preset: light}  # uncertainty weights, arXiv 1705.07115

and in Python `train(config, out, trainer=distillation.Projected)` projects conflicting gradients (PCGrad, 2001.06782).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutored import losses
from tutored.engine.trainer import Trainer
from tutored.losses import Term
from tutored.students.blitznet import BlitzNet
from tutored.tasks.segmentation import Segmentation
from tutored.types import Batch

TUTOR = ("tutor",)
TEMPERATURE, WEIGHT = 4.0, 3.0
"""CWD's, as in the paper."""


def correlated(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation along the last dimension."""
    return F.cosine_similarity(one - one.mean(-1, keepdim=True), other - other.mean(-1, keepdim=True), dim=-1)


def relations(raw: Tensor, targets: Any, cells: Any) -> Tensor:
    """How little the student's map correlates with the tutor's, over a cell's classes and over a class' cells."""
    taught = cells.probs.sum(1) > 0
    said, known = (each.movedim(1, -1)[taught] for each in (raw.float().softmax(1), cells.probs))
    apart = (1 - correlated(said, known)).mean() + (1 - correlated(said.T, known.T)).mean()
    return cells.normaliser * apart


def channels(raw: Tensor, targets: Any, cells: Any) -> Tensor:
    """Where each class is, one image at a time: a softmax of log-probabilities over the cells."""
    nowhere = (cells.probs.sum(1, keepdim=True) == 0).flatten(2)
    said, known = (
        (each.flatten(2) / TEMPERATURE).masked_fill(nowhere, -torch.inf).log_softmax(-1)
        for each in (raw.float().log_softmax(1), cells.probs.clamp(min=1 / 512).log())
    )
    apart = (known.exp() * (known - said).masked_fill(nowhere, 0)).sum(-1).mean()
    return cells.normaliser * WEIGHT * TEMPERATURE**2 * apart


class WithTerm(BlitzNet):
    """BlitzNet whose maps also learn another term from a tutor."""

    name: str
    sum: Any

    def __init__(self, config: Any, tasks: Mapping[str, Any]) -> None:
        super().__init__(config, tasks)
        for head in self.heads.values():
            if isinstance(head.task, Segmentation):
                head.terms[self.name] = Term(lambda _, cells: cells.normaliser, type(self).sum, TUTOR)


class WithRelations(WithTerm):
    """DIST."""

    name, sum = "relations", staticmethod(relations)


class WithChannels(WithTerm):
    """CWD."""

    name, sum = "channels", staticmethod(channels)


class WithLearntWeights(BlitzNet):
    """Each task's loss L weighs exp(-s) / 2 and costs s / 2, and s is learnt."""

    def __init__(self, config: Any, tasks: Mapping[str, Any]) -> None:
        super().__init__(config, tasks)
        self.doubt = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in tasks})

    def combine(self, terms: Mapping[str, Tensor], share: float) -> Tensor:
        total = terms[next(iter(terms))].new_zeros(())
        for name, doubt in self.doubt.items():
            own = [value for term, value in terms.items() if term.startswith(f"{name}/")]
            if own:
                total = total + torch.stack(own).sum() * (-doubt).exp() / 2 + share * doubt / 2
        return total


class Projected(Trainer):
    """Each task's gradient on shared weights loses what points against another task's."""

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        student, config = self.student, self.config.loss
        batch = batch.map(lambda tensor: tensor.to(self.device))
        assigned = losses.assign(student.heads, batch, config)
        factors = losses.divide(assigned.weights, student.heads, config)
        raw = student(batch.images.float() / 255)
        sums = losses.sums(raw, batch, assigned, student.heads)
        terms = dict(zip(sums, losses.weigh(sums, factors), strict=True))
        own = {id(parameter) for parameter in student.heads.parameters()}
        shared = [each for each in student.parameters() if each.requires_grad and id(each) not in own]
        pulls = {}
        for name in student.heads:
            loss = torch.stack([value for term, value in terms.items() if term.startswith(f"{name}/")]).sum()
            grads = torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True)
            pulls[name] = torch.cat([grad.flatten() for grad in grads])
        student.combine(terms, 1.0).backward()
        projected = {name: pull.clone() for name, pull in pulls.items()}
        for one, other in permutations(pulls, 2):
            against = (projected[one] @ pulls[other]).clamp(max=0)
            projected[one] -= against / pulls[other].square().sum().clamp(min=1e-12) * pulls[other]
        together = torch.split(torch.stack(list(projected.values())).sum(0), [each.numel() for each in shared])
        for parameter, gradient in zip(shared, together, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return {name: value.detach() for name, value in terms.items()}

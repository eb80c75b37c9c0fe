"""From raw outputs and targets to one scalar: named terms, each a weighted sum and its weight. No task is named here.

    assigned = assign(heads, batch, config)             what each head learns from each source; no outputs needed
    factors = divide(assigned.weights, heads, config)   one a term, from weights summed over the whole batch
    loss = weigh(sums(outputs, batch, assigned, heads), factors).sum()

The weights may be added up over micro-batches and processes before `divide`, and then the loss and its gradients
do not depend on how the batch was split.

A head is one task of one student. It has loss terms by name (`Head.terms`); a further term is one more entry:

    student.heads["segmentation"].terms["relations"] = Term(lambda targets, cells: cells.normaliser, my_sum)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutored.config import Loss
from tutored.types import SOURCES, Batch


def merge_unknown(log_probs: Tensor, unknown: Tensor, *, dim: int) -> Tensor:
    """Let background stand for itself or any class the source knows nothing about.

    Where a source says "background", the student is right with any of background and the unknown classes, so the
    log-probability of channel 0 becomes that of their union; the other channels stay. With nothing unknown, nothing
    changes; where that is known beforehand, it costs nothing.

    Args:
        log_probs: float32, classes along `dim`.
        unknown: bool, broadcastable to `log_probs`; background itself counts as included. Nothing along `dim`: nothing
            is unknown.
    """
    if unknown.shape[dim] == 0:
        return log_probs
    known = ~unknown
    known.select(dim, 0).fill_(False)
    union = log_probs.masked_fill(known, float("-inf")).logsumexp(dim=dim, keepdim=True)
    return torch.cat([union, log_probs.narrow(dim, 1, log_probs.shape[dim] - 1)], dim=dim)


class Term(NamedTuple):
    """One term of a head's loss, for one source of one batch.

    Attributes:
        weight: (targets, assigned) -> float32 scalar, what the sum is to be divided by. It must depend on targets
            alone, so that a batch may be split in any way.
        sum: (raw outputs of the head, targets, assigned) -> float32 scalar, the weighted sum.
        sources: whose targets it learns from.
    """

    weight: Callable[[Any, Any], Tensor]
    sum: Callable[[Any, Any, Any], Tensor]
    sources: tuple[str, ...] = SOURCES


Heads = Mapping[str, Any]
"""By task, the heads of a student (`students.heads.Head`), of which `terms`, `weight` and `assign` count here."""


class Assigned(NamedTuple):
    """What one batch teaches.

    Attributes:
        learned: by task and source, what `Head.assign` gave.
        weights: float32 scalars, `task/term/source`: what the term's sum is to be divided by; `images/task/source`: the
            summed weights of the images that the source teaches; with `untaught: counted` also `taught/task`, the
            images that anybody teaches, and `images`, all of them.
    """

    learned: dict[str, dict[str, Any]]
    weights: dict[str, Tensor]


def assign(heads: Heads, batch: Batch, config: Loss) -> Assigned:
    nothing = torch.zeros((), device=batch.images.device)
    learned: dict[str, dict[str, Any]] = {}
    weights: dict[str, Tensor] = {}
    for task, head in heads.items():
        targets = batch.targets.get(task, {})
        learned[task] = {source: head.assign(each, tutor=source == "tutor") for source, each in targets.items()}
        for source in SOURCES:
            there = targets.get(source)
            weights[f"images/{task}/{source}"] = nothing if there is None else there.weight.sum()
            for name, term in head.terms.items():
                teaches = there is not None and source in term.sources
                weights[f"{task}/{name}/{source}"] = term.weight(there, learned[task][source]) if teaches else nothing
        if config.untaught == "counted":
            together = sum((each.weight for each in targets.values()), nothing.new_zeros(len(batch.images)))
            weights[f"taught/{task}"] = (together > 0).sum(dtype=torch.float32)
    if config.untaught == "counted":
        weights["images"] = nothing + len(batch.images)
    return Assigned(learned, weights)


def sums(outputs: Mapping[str, Any], batch: Batch, assigned: Assigned, heads: Heads) -> dict[str, Tensor]:
    """The weighted sum of every term, `task/term/source`; float32 scalars.

    A task that nobody teaches in this batch has its first term, zero, so that every parameter has a gradient.
    """
    result = {}
    for source in SOURCES:
        for task, head in heads.items():
            if source in assigned.learned[task]:
                targets, learned = batch.targets[task][source], assigned.learned[task][source]
                for name, term in head.terms.items():
                    if source in term.sources:
                        result[f"{task}/{name}/{source}"] = term.sum(outputs[task], targets, learned)
    for task, head in heads.items():
        if not any(name.startswith(f"{task}/") for name in result):
            result[f"{task}/{next(iter(head.terms))}/{SOURCES[0]}"] = _zero(outputs[task])
    return result


def _zero(raw: Any) -> Tensor:
    """Zero, with a gradient for every raw output of a head."""
    if isinstance(raw, Tensor):
        return raw.sum() * 0
    return torch.stack([_zero(each) for each in raw]).sum()


def divide(
    weights: Mapping[str, Tensor],
    heads: Heads,
    config: Loss,
    *,
    mixture: Mapping[str, tuple[float, float]] | None = None,
    processes: int = 1,
) -> dict[str, Tensor]:
    """The factor of every term's sum.

    `joint`: a term's two sources share one normaliser, their weights' sum. Otherwise each source has its own, and the
    sources are mixed by the share of images each teaches (specification 3.6), or as `mixture` says.
    `untaught: counted` scales a task by the share of images that anybody teaches it, so that each of them weighs as
    much as in a batch where all are taught.

    Args:
        mixture: of the tasks whose policy is `both`, the weights of ground truth and tutor (formula 18: one half each,
            whatever they teach in this batch). For `joint` they are in the images' weights already.
        processes: whose gradients will be averaged, each with sums of its own images and with these weights.
    """
    factors: dict[str, Tensor] = {}
    for task, head in heads.items():
        images = torch.stack([weights[f"images/{task}/{source}"] for source in SOURCES])
        if mixture and task in mixture:
            images = images.new_tensor(mixture[task])
        share: Tensor | float = 1.0
        if config.untaught == "counted":
            share = weights[f"taught/{task}"] / weights["images"]
        for name in head.terms:
            own = torch.stack([weights[f"{task}/{name}/{source}"] for source in SOURCES])
            if config.joint:
                factor = (share / own.sum().clamp(min=1)).expand_as(own)
            else:
                factor = share * images / images.sum().clamp(min=1e-6) / own.clamp(min=1)
            scaled = factor * (head.weight * processes)
            factors |= {f"{task}/{name}/{source}": each for source, each in zip(SOURCES, scaled, strict=True)}
    return factors


def weigh(sums: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> Tensor:
    """Every term's sum by its factor, float32 [terms] in the order of `sums`; the loss is their sum."""
    return torch.stack(list(sums.values())) * torch.stack([factors[name] for name in sums])

"""The audit of a tutor's instances: that of their boxes; how well masks fit is measured by `evaluate`."""

from __future__ import annotations

from typing import Any

from tutored.tasks.detection import Detection
from tutored.tasks.detection.audit import BoxAuditor, Evidence
from tutored.tasks.instances.types import Instances


class InstanceAuditor(BoxAuditor):
    """Compares the boxes of instances with those of objects."""

    def __init__(self, task: Any) -> None:
        super().__init__(Detection(task.name, task.labels, task.section))

    def observe(self, truth: Any, answer: Any, *rest: Any) -> Evidence:
        return super().observe(truth, self._boxes(answer), *rest)

    def compare(self, one: Any, other: Any, size: tuple[int, int]) -> Any:
        return super().compare(self._boxes(one), self._boxes(other), size)

    def _boxes(self, answer: Instances) -> Any:
        return answer.soft_boxes(len(self.task.labels))

"""One run's complete configuration: frozen, validated, from YAML with dotted overrides, hashed to a run id."""

from tutored.config.presets import PRESETS
from tutored.config.read import load_config, make_config, read_yaml
from tutored.config.run import THESIS, Config, flat, merged
from tutored.config.supervision import TASKS, Data, MoreData, Supervision, Task
from tutored.config.training import Augment, Decode, Loss, Student, Train

__all__ = [
    "PRESETS",
    "TASKS",
    "THESIS",
    "Augment",
    "Config",
    "Data",
    "Decode",
    "Loss",
    "MoreData",
    "Student",
    "Supervision",
    "Task",
    "Train",
    "flat",
    "load_config",
    "make_config",
    "merged",
    "read_yaml",
]

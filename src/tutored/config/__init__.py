"""One run's complete configuration: frozen, validated, from YAML with dotted overrides, hashed to a run id."""

from tutored.config.run import Config, flat, load_config, make_config, merged, read_yaml
from tutored.config.students import StudentSection
from tutored.config.tasks import ClassSection, TaskSection
from tutored.config.training import Augment, Data, Loss, MoreData, Train

__all__ = [
    "Augment",
    "ClassSection",
    "Config",
    "Data",
    "Loss",
    "MoreData",
    "StudentSection",
    "TaskSection",
    "Train",
    "flat",
    "load_config",
    "make_config",
    "merged",
    "read_yaml",
]

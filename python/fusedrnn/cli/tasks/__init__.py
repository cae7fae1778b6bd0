"""What ``train`` trains, by name."""

from fusedrnn.cli.tasks.base import Source, Task
from fusedrnn.cli.tasks.char_lm import CharLM

TASKS: dict[str, type[Task]] = {task.name: task for task in (CharLM,)}

__all__ = ["TASKS", "Source", "Task"]

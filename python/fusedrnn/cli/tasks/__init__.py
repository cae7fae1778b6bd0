"""What ``train`` trains, by name."""

from fusedrnn.cli.tasks.base import Source, Task
from fusedrnn.cli.tasks.char_lm import CharLM
from fusedrnn.cli.tasks.classify import Classify
from fusedrnn.cli.tasks.forecast import Forecast
from fusedrnn.cli.tasks.seq2seq import Sequences

TASKS: dict[str, type[Task]] = {task.name: task for task in (CharLM, Classify, Sequences, Forecast)}

__all__ = ["TASKS", "Source", "Task"]

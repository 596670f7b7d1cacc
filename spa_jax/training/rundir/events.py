"""TensorBoard event files, written without TensorFlow."""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventWriter:
    """Writes scalars as TensorBoard events; needs the `tensorboard` package, not TensorFlow.

    Raises:
      ImportError: the package is not installed.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # A generated module, whose names are unknown to type checkers.
        self._protocol = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._writer = EventFileWriter(str(folder))
        # Tells TensorBoard to forget what a run that was cut off had written after this step.
        start = self._event(start_step + 1)
        start.session_log.status = self._protocol.SessionLog.START
        self._writer.add_event(start)

    def write(self, step: int, group: str, record: Mapping[str, Any]) -> None:
        """Writes the numbers of a record as those of one step, each as `group/name`."""
        event = self._event(step)
        for name, value in record.items():
            if isinstance(value, int | float):
                event.summary.value.add(tag=f"{group}/{name}", simple_value=value)
        self._writer.add_event(event)

    def close(self) -> None:
        """Flushes what is left."""
        self._writer.close()

    def _event(self, step: int) -> Any:
        return self._protocol.Event(wall_time=time.time(), step=step)

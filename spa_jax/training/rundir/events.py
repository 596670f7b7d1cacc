"""TensorBoard event files, written without TensorFlow."""

import time
from pathlib import Path
from typing import Any


class EventWriter:
    """Writes scalars as TensorBoard events; needs the `tensorboard` package, not TensorFlow.

    Raises:
      ImportError: the package is not installed.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # Generated modules, whose names are unknown to type checkers.
        events: Any = event_pb2
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        self._writer = EventFileWriter(str(folder))
        # Tells TensorBoard to forget what a run that was cut off had written after this step.
        start = events.SessionLog(status=events.SessionLog.START)
        self._writer.add_event(
            self._event(wall_time=time.time(), step=start_step + 1, session_log=start)
        )

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes the scalars of one step."""
        values = [self._summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        summary = self._summary(value=values)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Flushes what is left."""
        self._writer.close()

"""Files of JSON lines that survive a crash, and are cut back to a checkpoint."""

import json
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError
from spa_jax.files import write_text_whole


class JsonLines:
    """A file with one JSON object a line, each with a field `step`.

    On several hosts all read it, and one (`writes`) writes.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self._writes = writes

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line and hands it to the operating system."""
        if not self._writes:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a half-written last one is left out.

        Raises:
          InputError: a line whose step is no number.
        """
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict):
                break
            if not isinstance(record.get("step", 0), int):
                raise InputError(
                    f"{self.path} cannot be read (a line has the step {record['step']!r}): put the "
                    "file back, or start over in another workdir."
                )
            records.append(record)
        return records

    def check_epochs(
        self, start: int, steps_per_epoch: int, checkpoint: Path, evaluate_every: int = 1
    ) -> None:
        """Raises InputError unless there is a line for each epoch up to a checkpoint's step.

        Only the last one is needed of those that were not evaluated, see
        :meth:`spa_jax.training.rundir.run_record.RunRecord.open`.
        """
        found = {record.get("step", 0) for record in self.read()}
        steps = {step for step in found if step <= start}
        epochs = range(steps_per_epoch, start + 1, steps_per_epoch)
        if not {*epochs[evaluate_every - 1 :: evaluate_every], *epochs[-1:]} <= steps <= {*epochs}:
            raise InputError(
                f"{self.path} does not hold the epochs up to step {start}, which the checkpoint in "
                f"{checkpoint} continues from: put the file back, or remove both to start over."
            )

    def cut_back(self, step: int) -> list[dict[str, Any]]:
        """Drops the lines after `step` by writing a new file and renaming it; returns the rest."""
        kept = [record for record in self.read() if record.get("step", 0) <= step]
        if self.path.exists():
            self.write(kept)
        return kept

    def write(self, records: list[dict[str, Any]]) -> None:
        """Puts these lines in place of all there are, at once."""
        if self._writes:
            write_text_whole(self.path, "".join(json.dumps(record) + "\n" for record in records))

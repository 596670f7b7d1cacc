"""What a person at a terminal sees of a run while it trains."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """Loss, accuracy, mean cosine, images a second and time left; silent if not a terminal."""

    def __init__(self, start: int, total_steps: int, enabled: bool) -> None:
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._enabled = enabled
        self._task = self._progress.add_task("compiling", total=total_steps, completed=start)

    def __enter__(self) -> "ProgressBar":
        if self._enabled:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._enabled:
            self._progress.stop()

    def show(self, step: int, shown: dict[str, float | None]) -> None:
        """Moves to a step and shows its numbers."""
        text = "  ".join(
            f"{name} {value:,.0f}" if name == "img/s" else f"{name} {value:.3f}"
            for name, value in shown.items()
            if value is not None
        )
        self._progress.update(self._task, completed=step, description=text)

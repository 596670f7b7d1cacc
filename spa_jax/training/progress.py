"""What a person at a terminal sees of a run while it trains."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar(Progress):
    """Loss, accuracy, mean cosine, images a second and time left; silent unless it is enabled."""

    def __init__(self, start: int, total_steps: int, enabled: bool) -> None:
        super().__init__(
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._bar = self.add_task("compiling", total=total_steps, completed=start)

    def stop(self) -> None:
        """Ends the bar; older versions of rich write a line even if it is disabled."""
        if not self.disable:
            super().stop()

    def show(self, step: int, shown: dict[str, float | None]) -> None:
        """Moves to a step and shows its numbers."""
        text = "  ".join(
            f"{name} {value:,.0f}" if name == "img/s" else f"{name} {value:.3f}"
            for name, value in shown.items()
            if value is not None
        )
        self.update(self._bar, completed=step, description=text)

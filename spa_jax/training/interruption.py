"""Preemption and Ctrl-C: notices after which a run ends at a step that all hosts agree on."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

PREEMPTED = 75
"""The exit status of what was stopped by SIGTERM and can go on: EX_TEMPFAIL of sysexits.h."""

_DEFAULTS = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


class Interruption:
    """Notices of SIGTERM and of Ctrl-C, as a context manager; a second Ctrl-C ends the process.

    Handlers are installed in the main thread only, and where the program has none of its own. On
    several hosts JAX takes SIGTERM and tells all of them of it, of a Ctrl-C too.

    Attributes:
      due: whether the run is to end where it is.
    """

    def __init__(self) -> None:
        self.due = False
        self._signal: int = signal.SIGTERM
        self._installed: dict[signal.Signals, Any] = {}
        self._several = jax.process_count() > 1
        self._at_once = False

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number, default in _DEFAULTS.items():
                jaxs = self._several and number == signal.SIGTERM
                if signal.getsignal(number) == default and not jaxs:
                    self._installed[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._installed.items():
            signal.signal(number, before)

    def reached(self, step: int) -> bool:
        """Whether the run is to end after a step, the same on all hosts; asked after every step."""
        settings: Any = jax.config
        if self._several and settings.jax_enable_preemption_service:
            self.due = multihost_utils.reached_preemption_sync_point(step)
        return self.due

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises :meth:`error` at a notice, where one host trains; for what can be done again."""
        self._at_once = not self._several
        try:
            if self._at_once and self.due:
                raise self.error()
            yield
        finally:
            self._at_once = False

    def error(self) -> BaseException:
        """What ends the run: SystemExit with status 75, or KeyboardInterrupt."""
        return KeyboardInterrupt() if self._signal == signal.SIGINT else SystemExit(PREEMPTED)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self.due = True
        if self._at_once:
            raise self.error()

"""All commands under one name: `spa-jax compare ...` is `python -m spa_jax.compare ...`."""

import runpy
import sys
from collections.abc import Mapping

from spa_jax import __version__
from spa_jax.errors import MissingExtra

COMMANDS: Mapping[str, tuple[str, str]] = {
    "train": ("spa_jax.train", "trains one configuration, and resumes it"),
    "compare": ("spa_jax.compare", "variants of SpA and seeds side by side"),
    "sweep": ("spa_jax.sweep", "a grid of settings and seeds"),
    "report": ("spa_jax.report", "one HTML page of finished runs, with figures"),
    "evaluate": ("spa_jax.evaluate", "measures finished runs from their checkpoints"),
    "reproduce": ("spa_jax.reproduce", "the runs of the paper's tables"),
    "describe": ("spa_jax.data.describe", "shows a long-tailed split"),
    "prepare": ("spa_jax.data.prepare", "downloads a data set with TFDS, once"),
    "import-weights": ("spa_jax.models.import_weights", "weights of other libraries, for a start"),
    "check": ("spa_jax.data.check", "decodes every file of a data set once"),
}
"""Name of a command -> its module, and what it does."""


def main() -> int:
    """Runs the command that the first argument names; 2 with a message if there is none."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name == "--version":
        print(f"spa_jax {__version__}")
        return 0
    if name not in COMMANDS:
        asked = name in ("-h", "--help")
        if name and not asked:
            print(f"error: there is no command {name!r}.", file=sys.stderr)
        lines = [f"  {command:15} {does}" for command, (_, does) in COMMANDS.items()]
        usage = ["spa-jax COMMAND ..., where --help after a command shows its flags:", *lines]
        print("\n".join(usage), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    del sys.argv[1]
    try:
        runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    except MissingExtra as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

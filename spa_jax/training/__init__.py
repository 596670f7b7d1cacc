"""State, one step, the loop, evaluation, checkpoints, devices and records."""

"""Where a step gets its examples from: the devices' memory, or a stream from the host.

A feed has its `data`, `steps_per_epoch` (full batches, and a smaller one where
`config.data.drop_last` is False) and `normalize`, from images or features as they are kept to the
network's float32 input. `batches(state, seed, epoch, done=0)` yields the inputs of each step of an
epoch but the first `done`, one pytree whose `places` are those of
:mod:`spa_jax.training.devices`; from them `batch(state, inputs)` takes this view's part inside
the step. `evaluation(part)`, `evaluation_places` and `evaluation_batch(inputs)` do the same for the
part "train", "test" or "validation". `close()` ends what feeds.
"""

from spa_jax.training.feeds.resident import ResidentFeed
from spa_jax.training.feeds.streamed import StreamFeed

Feed = ResidentFeed | StreamFeed

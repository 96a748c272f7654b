"""The floor of an update: what no method can avoid, forward and backward passes of both levels."""

from __future__ import annotations

import torch

from dreamprm.distributed import everywhere, own_part, random_state, set_random_state
from dreamprm.loss import outer_loss
from dreamprm.phases.phase import inner_losses, pieces
from dreamprm.phases.state import Run
from dreamprm.profiling import Clock

__all__ = ["floor_seconds"]


def floor_seconds(run: Run, clock: Clock) -> float:
    """Seconds of these passes on the next update's chains.

    Everything is left as it was: parameters, gradients, buffers, random states and samplers.
    """
    outer, parameters = run.settings.outer, list(run.trainable().values())
    buffers = {buffer: buffer.clone() for buffer in run.prm.buffers()}
    random = random_state()
    batches = [
        (name, run.batch(records, own_part(rows)))
        for name, records, settings in (("inner", run.train, run.settings.inner), ("outer", run.meta, outer))
        for rows in pieces(run.samplers[name].peek(settings.batch_size * settings.accumulate), settings.batch_size)
    ]
    clock.start()
    for name, batch in batches:
        with run.autocast():
            read = run.prm(batch)
            if name == "inner":
                loss = inner_losses(run, batch, read).mean()
            else:
                loss = outer_loss(read, batch, outer.aggregate, outer.loss, everywhere)
        torch.autograd.grad(loss, parameters, allow_unused=True)
    seconds = sum(clock.stop().values())
    with torch.no_grad():
        for buffer, value in buffers.items():
            buffer.copy_(value)
    set_random_state(random)
    return seconds

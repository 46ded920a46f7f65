"""Training: settings, batches, the loop, stages, losses, gradient surgery, checkpoints."""

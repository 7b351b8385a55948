"""Training of networks, shared by all techniques: options, loop, schedules, optimizers, EMA of the weights."""

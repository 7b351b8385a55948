"""Training of networks, the same for all techniques: options, loop, schedules, optimizers, averaged weights."""

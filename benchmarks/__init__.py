"""What logging costs: tbxd beside tensorboardX and ``torch.utils.tensorboard``, and in trouble, all in one run.

``python -m benchmarks`` answers every question below; each is a module of this package with a ``QUESTION`` (see
`benchmarks.question`), and a new one has to be named here only.
"""

QUESTIONS = ("add_scalar", "add_histogram", "other_calls", "troubled", "daemon_scalars")

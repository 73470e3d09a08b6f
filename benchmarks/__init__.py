"""What logging costs: tbxd beside the writers and trackers it is compared with, and in trouble, all in one run.

``python -m benchmarks`` answers the questions below; each is a module of this package with a ``QUESTION`` (see
`benchmarks.question`), and a new one has to be named here only.
"""

QUESTIONS = (
    "add_scalar",
    "log_values",
    "add_histogram",
    "whole_model",
    "add_image",
    "other_calls",
    "training_loop",
    "starting",
    "killed",
    "break_even",
    "latency",
    "troubled",
    "daemon_scalars",
    "ranks",
    "recovery",
    "age",
    "syncs",
)
CURVES = ("growth_records", "growth_size", "growth_tags", "growth_runs", "growth_writers")  # these take longer

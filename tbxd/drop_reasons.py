"""The reasons for dropped records: the names under which they are counted, and advice for each."""

from __future__ import annotations

ONNX_NOT_INSTALLED = "onnx_not_installed"
LATE_RANK = "late_rank"  # a rank's record that came when its point had gone out
TOO_MANY_TAGS = "too_many_tags"  # so many tags of so many ranks cannot be followed

HINTS = {  # what can be done about a reason, for `tbxd status`
    ONNX_NOT_INSTALLED: "graphs of ONNX need onnx beside the daemon: pip install onnx, and log them again",
    "journal_full": "more is logged than written: see `tbxd status`, raise TBXD_JOURNAL_BYTES, log less",
    "too_large": "log something smaller, or raise TBXD_JOURNAL_BYTES",
    "journal_error": "free the disk of the spool, or let TBXD_SPOOL name a folder on another",
    "no_journal": "make TBXD_SPOOL a folder of yours on a local disk (see ulimit -n); it is tried again every 5 s",
    "shutdown": "log arrays before the script ends, not in a __del__ when Python imports nothing any more",
    "reentrant": "signal handlers log too often within one call that logs: log less in them",
    "bad_argument": "the trainer's stderr has the first invalid call: correct it",
    "no_finite_values": "histograms without a finite value: look at the model",
    "no_values": "an embedding or a curve without points: log it when it has some",
    "bad_bins": "choose other bins for the histogram",
    "unknown_kind": "the client is newer than the daemon: `tbxd stop`; the client starts a new one",
    TOO_MANY_TAGS: "log fewer tags from ranks, or with TBXD_RANKS=all",
    "file_error": "the disk did not take a file beside the event file: free it, and log the embedding again",
    "file_lost": "another program removed or cut an event file that was being written: keep it from that",
    "bad_name": "the folder's file system refuses the name (exFAT, NTFS: : * ? and their like): use another",
    "bad_record": "an invalid record: please report it",
    "internal_error": "a fault of tbxd: please report it with the daemon's log",
    LATE_RANK: "a rank logged its values too late: the daemon waits for TBXD_RANKS_SECONDS",
}

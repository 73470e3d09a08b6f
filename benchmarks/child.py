"""The process that is measured: ``python -m benchmarks.child QUESTION PEER COUNTS LOGS RESULT``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from .peers import NotPossible
from .question import Outcome, load


def main(question: str, peer: str, counts: str, logs: str, result: str) -> None:
    """Measure, and leave the outcome as JSON in the file ``result``."""
    asked = load(question)
    try:
        outcome = asked.measure(asked.peers[peer], json.loads(counts), Path(logs))
    except NotPossible as reason:
        outcome = Outcome(not_possible=str(reason))
    Path(result).write_text(json.dumps(dataclasses.asdict(outcome)))


if __name__ == "__main__":
    main(*sys.argv[1:])

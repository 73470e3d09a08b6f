#!/usr/bin/env bash
# Three trainings as background jobs of one shell, which waits for them.
# run: bash $PROGRAM

set -e
pids=()
for seed in 1 2 3; do
  SEED=$seed python - <<'PYTHON' &
import os, time
from tensorboardX import SummaryWriter
seed = int(os.environ["SEED"])
writer = SummaryWriter(f"runs/seed{seed}")
for step in range(80):
    writer.add_scalar("loss", seed + 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
PYTHON
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done

#!/usr/bin/env bash
# A scheduler that warns with SIGUSR1; the job logs in the handler, saves, leaves with 85, and is put in the queue again.
# run: bash $PROGRAM
# oracle: noted*.csv

cat > train.py <<'PYTHON'
import os, signal, sys, time
from tensorboardX import SummaryWriter

first = int(open("checkpoint").read()) if os.path.exists("checkpoint") else 0
writer = SummaryWriter("runs/requeued", purge_step=first)
noted = open(f"noted{first}.csv", "w", buffering=1)


def log(tag, step, value):
    noted.write(f"runs/requeued,{tag},{step},{value}\n")
    writer.add_scalar(tag, value, step)


def warned(number, frame):
    writer.flush()
    with open("checkpoint", "w") as file:
        file.write(str(step + 1))
    raise SystemExit(85)


signal.signal(signal.SIGUSR1, warned)
step = first - 1
if first:
    log("restarts", first, 1.0)
for step in range(first, 10_000):
    log("loss", step, 1.0 / (step + 1))
    time.sleep(0.004)
    if first and step > first + 100:
        break
writer.close()
PYTHON
python train.py &
until grep -qs ,100, noted0.csv; do sleep 0.02; done
kill -USR1 $!
wait $!
code=$?
[ $code = 85 ] || exit $code
exec python train.py

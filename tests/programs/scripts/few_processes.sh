#!/usr/bin/env bash
# ulimit -u: a user who may have no further thread, or one, two, three; the job's epilog then writes what is left.
# run: setpriv --reuid 61235 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override bash $PROGRAM
# needs: root, setpriv
# without: original warm
# meant: noted: the original needs a thread and raises
# oracle: noted*.csv
# says: .

cat > train.py <<'PYTHON'
import sys
import time

from tensorboardX import SummaryWriter

name = f"runs/limit{sys.argv[1]}"
writer = SummaryWriter(name)
noted = open(f"noted{sys.argv[1]}.csv", "w", buffering=1)
for step in range(50):
    noted.write(f"{name},loss,{step},{1.0 / (step + 1)}\n")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
PYTHON
for limit in 2 3 4 5; do
  (
    ulimit -u $limit
    exec python train.py $limit
  ) || exit
done
exec python -m tbxd drain > drained.log

"""In a terminal, as in tmux or screen: script gives it a pty."""
# run: script --quiet --return --command "python $PROGRAM" /dev/null
# needs: script

import sys
import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/terminal")
for step in range(60):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    if sys.stdout.isatty():
        print(f"\rstep {step}", end="", flush=True)
    time.sleep(0.005)
print()
writer.close()

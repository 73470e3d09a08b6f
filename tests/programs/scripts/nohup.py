"""nohup in the background, and the shell that started it is gone at once."""
# run: nohup python $PROGRAM > train.log 2>&1 &

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/nohup")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.005)
print("done")
writer.close()

"""Nobody closes the writer: the script ends where its loop does."""

import time

import tensorboardX

writer = tensorboardX.SummaryWriter("runs/forgotten", flush_secs=10)
for step in range(300):
    writer.add_scalar("loss", 300.0 - step, global_step=step)
    time.sleep(0.001)

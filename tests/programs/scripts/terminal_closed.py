"""The terminal goes away in the middle; the training ignores the hang-up, as under nohup or disown, and goes on."""

import os
import pty
import signal
import sys
import time


def train():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from tensorboardX import SummaryWriter

    writer = SummaryWriter("runs/hangup")
    for step in range(150):
        writer.add_scalar("loss", 1.0 / (step + 1), step)
        if step == 20:
            print("training", flush=True)
        time.sleep(0.005)
    writer.close()


if sys.argv[1:]:
    train()
else:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, __file__, "train"])
    said = b""
    while b"\n" not in said:
        said += os.read(terminal, 100)
    os.close(terminal)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

"""A notebook, run cell by cell by a kernel as papermill does; it is restarted in the middle."""
# needs: jupyter_client, ipykernel
# seconds: 60

import sys

import jupyter_client

FIRST = """
from tensorboardX import SummaryWriter
writer = SummaryWriter("runs/notebook")
for step in range(50):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
"""
SECOND = "writer.add_text('note', 'half way', 50)\nwriter.flush()"
AFTER = """
from tensorboardX import SummaryWriter
with SummaryWriter("runs/restarted") as writer:
    for step in range(50):
        writer.add_scalar("loss", 2.0 / (step + 1), step)
"""


def run(client, cell):
    reply = client.execute_interactive(cell, timeout=60)
    if reply["content"]["status"] != "ok":
        sys.exit(1)


manager = jupyter_client.KernelManager(kernel_name="python3")
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
run(client, FIRST)
run(client, SECOND)
manager.restart_kernel()
client.wait_for_ready(timeout=60)
run(client, AFTER)
client.stop_channels()
manager.shutdown_kernel()

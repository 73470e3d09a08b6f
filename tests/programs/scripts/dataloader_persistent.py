"""A DataLoader with persistent workers, made after the first record; the loop logs while they live."""
# needs: torch
# seconds: 60

import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

loader = DataLoader(TensorDataset(torch.arange(1000.0)), batch_size=10, num_workers=4, persistent_workers=True)
writer = SummaryWriter("runs/persistent")
writer.add_text("config", "lr=0.1", 0)
step = 0
for epoch in range(3):
    for (x,) in loader:
        writer.add_scalar("loss", float(x.mean()), step)
        step += 1
    writer.add_scalar("epoch", epoch, step)
writer.close()

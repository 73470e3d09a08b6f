"""A DataLoader whose two workers are forked anew in each epoch, between flushes."""
# needs: torch
# seconds: 60

import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

model = torch.nn.Linear(1, 1)
loader = DataLoader(TensorDataset(torch.arange(200.0)), batch_size=10, num_workers=2)
with SummaryWriter("runs/each_epoch") as writer:
    step = 0
    for epoch in range(4):
        for (x,) in loader:
            writer.add_scalar("train/x", x.mean().item(), step)
            step += 1
        for name, parameter in model.named_parameters():
            writer.add_histogram(name, torch.zeros_like(parameter), epoch)
        writer.flush()

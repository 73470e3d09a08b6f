"""A DataLoader with spawned workers, in the middle of training."""
# needs: torch
# seconds: 90

import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter


def main():
    writer = SummaryWriter("runs/spawn")
    writer.add_scalar("begun", 1, 0)
    data = TensorDataset(torch.arange(200.0))
    loader = DataLoader(data, batch_size=10, num_workers=2, multiprocessing_context="spawn")
    for step, (x,) in enumerate(loader):
        writer.add_scalar("loss", x.mean(), step)
    writer.close()


if __name__ == "__main__":
    main()

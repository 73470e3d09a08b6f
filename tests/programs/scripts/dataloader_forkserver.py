"""A DataLoader with persistent workers of a fork server."""
# needs: torch
# seconds: 90

import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter


def main():
    writer = SummaryWriter("runs/forkserver")
    writer.add_scalar("begun", 1, 0)
    loader = DataLoader(
        TensorDataset(torch.arange(200.0)),
        batch_size=10,
        num_workers=2,
        multiprocessing_context="forkserver",
        persistent_workers=True,
    )
    step = 0
    for _ in range(2):
        for (x,) in loader:
            writer.add_scalar("loss", x.mean(), step)
            step += 1
    writer.close()


if __name__ == "__main__":
    main()

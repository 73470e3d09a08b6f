"""Workers of a DataLoader log how long their samples are, each with a writer that it makes in worker_init_fn."""
# needs: torch
# seconds: 60

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.tensorboard import SummaryWriter


class Lines(Dataset):
    def __len__(self):
        return 120

    def __getitem__(self, index):
        worker = get_worker_info()
        worker.dataset.writer.add_scalar("length", index % 17, index)
        worker.dataset.writer.flush()
        return torch.tensor(float(index))


def begin(number):
    get_worker_info().dataset.writer = SummaryWriter(f"runs/data/worker{number}")


if __name__ == "__main__":
    writer = SummaryWriter("runs/data/main")
    writer.add_scalar("begun", 1, 0)
    loader = DataLoader(Lines(), batch_size=10, num_workers=3, worker_init_fn=begin)
    for step, batch in enumerate(loader):
        writer.add_scalar("mean", batch.mean(), step)
    writer.close()

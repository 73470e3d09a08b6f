"""Accelerate: its tracker for TensorBoard, and gradient accumulation."""
# needs: frameworks
# seconds: 120
# meant: hparams: an experiment is written only where the columns are given

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

accelerator = Accelerator(log_with="tensorboard", project_dir="runs", gradient_accumulation_steps=2, cpu=True)
accelerator.init_trackers("accelerate", config={"lr": 0.01, "layers": 1})
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loader = DataLoader(TensorDataset(torch.linspace(0, 1, 64)[:, None]), batch_size=4, num_workers=2)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
step = 0
for epoch in range(2):
    for (x,) in loader:
        with accelerator.accumulate(model):
            loss = model(x).pow(2).mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.log({"number": step / 2, "epoch": epoch}, step=step)
        step += 1
accelerator.end_training()

"""Lightning: a Trainer with its TensorBoardLogger, loaders with workers, validation and checkpoints."""
# needs: frameworks
# seconds: 120

import logging
import warnings

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Model(lightning.LightningModule):
    def __init__(self, lr=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("train/number", float(number))
        return loss

    def validation_step(self, batch, number):
        self.log("val/number", float(number + 1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    data = TensorDataset(torch.linspace(0, 1, 64)[:, None])
    train = DataLoader(data, batch_size=4, num_workers=2, persistent_workers=True)
    val = DataLoader(data, batch_size=16, num_workers=1)
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=TensorBoardLogger("runs", name="lightning", default_hp_metric=False),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Model(), train, val)

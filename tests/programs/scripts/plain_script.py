"""A plain script: scalars, histograms, an image now and then, a text, and hparams at its end."""
# meant: hparams: an experiment is written only where the columns are given

import numpy as np
from tensorboardX import SummaryWriter


def main():
    rng = np.random.default_rng(0)
    writer = SummaryWriter("runs/plain")
    writer.add_text("config", "lr=0.1, batch=32", 0)
    weights = rng.normal(size=(64, 32)).astype(np.float32)
    for step in range(200):
        loss = 1.0 / (step + 1)
        writer.add_scalar("train/loss", loss, step)
        writer.add_scalars("accuracy", {"train": 1 - loss, "val": 0.9 - loss}, step)
        if step % 20 == 0:
            writer.add_histogram("weights", weights * loss, step)
        if step % 100 == 0:
            writer.add_image("sample", rng.integers(0, 255, (3, 16, 16), dtype=np.uint8), step)
    writer.add_hparams({"lr": 0.1, "batch": 32}, {"hparam/loss": loss})
    writer.close()


if __name__ == "__main__":
    main()

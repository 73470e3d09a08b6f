"""PyTorch-Ignite: an engine with its TensorboardLogger."""
# needs: frameworks
# seconds: 120

import torch
from ignite.engine import Engine, Events
from ignite.handlers.tensorboard_logger import TensorboardLogger, WeightsHistHandler

model = torch.nn.Linear(2, 1)
torch.nn.init.constant_(model.weight, 0.5)
torch.nn.init.constant_(model.bias, 0.0)


def update(engine, batch):
    return {"batch": float(batch)}


trainer = Engine(update)
with TensorboardLogger(log_dir="runs/ignite") as logger:
    logger.attach_output_handler(
        trainer, event_name=Events.ITERATION_COMPLETED, tag="training", output_transform=lambda output: output
    )
    logger.attach(trainer, event_name=Events.EPOCH_COMPLETED, log_handler=WeightsHistHandler(model))
    trainer.run(range(20), max_epochs=3)

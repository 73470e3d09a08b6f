"""tbxd's client: ``SummaryWriter`` as in tensorboardX and torch.utils.tensorboard, writing through the tbxd daemon.

Importing it loads pyzmq and msgpack; not numpy, torch, protobuf or TensorBoard.
"""

from .file_writer import FileWriter
from .writer import SummaryWriter

__all__ = ["FileWriter", "SummaryWriter"]

"""tbxd's client: ``SummaryWriter`` as in tensorboardX and torch.utils.tensorboard, writing through the tbxd daemon.

Importing it loads msgpack, and the first writer pyzmq; not numpy, torch, protobuf or TensorBoard. In a
subinterpreter it raises ImportError.
"""

# ruff: noqa: E402 - nothing may be imported before it is known that it can be used
from .process.interpreters import refuse_subinterpreters

refuse_subinterpreters()

from .global_writer import GlobalSummaryWriter
from .logdir.record_writer import RecordWriter
from .torchvis import TorchVis
from .writer import SummaryWriter
from .writers.file_writer import FileWriter

__version__ = "0.1.0"

__all__ = ["FileWriter", "GlobalSummaryWriter", "RecordWriter", "SummaryWriter", "TorchVis"]

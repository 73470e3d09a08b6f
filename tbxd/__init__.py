"""tbxd: the daemon that writes TensorBoard event files for training processes."""

__version__ = "0.1.0"

"""The tab "tbxd" of TensorBoard: what the daemon does, and curves as they come, in the colours that were asked for.

TensorBoard finds it by the entry point ``tensorboard_plugins`` where tbxd is installed beside it. Nothing else of tbxd
knows of this package.
"""

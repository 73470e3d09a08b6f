"""The tab "tbxd" of TensorBoard: the state of the daemon, and live curves, in the logged colours.

TensorBoard finds it by the entry point ``tensorboard_plugins`` if tbxd is installed beside it. Nothing else of tbxd
imports this package.
"""

"""Metrics of the node while runs are logged: processors, memory, disks, network and GPUs, as curves beside each run."""

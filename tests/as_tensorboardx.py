"""A plugin of pytest: tbxd under the name ``tensorboardX``, for tensorboardX's own tests of its interface.

Modules that tbxd has, and says to be the same, are tbxd's. What it says to be internal (``summary``, ``proto``, …;
docs/COMPATIBILITY.md) is the original's, as for a script that imports it from there.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import types

import tensorboardX

import tbxd_client

OURS = ("event_file_writer", "global_writer", "record_writer", "torchvis", "writer")

for found in pkgutil.iter_modules(tensorboardX.__path__):
    name = f"tensorboardX.{found.name}"
    module = importlib.import_module(f"tbxd_client.{found.name}" if found.name in OURS else name)
    sys.modules[name] = module
    setattr(tbxd_client, found.name, module)
for name in ("boto3", "moto"):  # imported by tests of object stores, beside others that need none
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].mock_s3 = lambda function: function
sys.modules["tensorboardX"] = tbxd_client

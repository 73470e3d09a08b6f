"""skorch: a scikit-learn classifier around a torch module, with its TensorBoard callback, in a cross-validation."""
# needs: frameworks
# seconds: 120

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import TensorBoard
from torch.utils.tensorboard import SummaryWriter

torch.manual_seed(0)
x = np.linspace(0, 1, 64, dtype=np.float32)[:, None]
y = (x[:, 0] > 0.5).astype(np.int64)
with SummaryWriter("runs/skorch") as writer:
    net = NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Softmax(dim=-1)),
        max_epochs=5,
        verbose=0,
        callbacks=[TensorBoard(writer, close_after_train=False, keys_ignored=["dur"])],
    )
    net.fit(x, y)

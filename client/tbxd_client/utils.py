"""The names that scripts import from ``tensorboardX.utils``."""

from __future__ import annotations

from typing import Any

from .values.arrays import widened
from .values.media import figure_to_array


def figure_to_image(figures: Any, close: bool = True) -> Any:
    """Return a matplotlib figure as an array.

    Args:
        figures: a figure, or a list of them.
        close: close them afterwards.

    Returns:
        uint8, shape (3, height, width); of a list (figures, 3, height, width).

    Raises:
        TypeError, ValueError: an argument is not a figure, or there is none.
    """
    import numpy as np

    return np.moveaxis(widened(figure_to_array(figures, close)), -1, -3)

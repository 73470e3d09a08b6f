"""The limits of records, declared once: the client refuses more in the call, and the daemon accepts up to here.

The limits of the protocol itself are in `records` and `wire`. The largest attributes that are possible here are within
`records.ATTRS_BYTES_MAX`; ``tests/faults/test_limits.py`` logs the largest of all.
"""

from __future__ import annotations

# --- arrays ----------------------------------------------------------------------------------------------------

BFLOAT16 = "bfloat16"  # the one dtype that numpy has no name for; the daemon widens it
# The others, by numpy's names; no other name reaches numpy, which would take "O" and "V9".
DTYPES = ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16")
DIMENSIONS_MAX = 8  # of an array
ARRAYS_MAX = 8  # in one record

# --- attributes ------------------------------------------------------------------------------------------------

ROW_VALUES_MAX = 10_000  # values in one row
BINS_MAX = 65_536  # bins of one histogram: 1 MiB in the event file
PARTIAL_SUMS_MAX = 64  # of one exact sum: 2,098 bits of a float64 sum, in numbers of 53 bits each, are 40
BIN_RULES = ("tensorflow", "auto", "fd", "doane", "scott", "stone", "rice", "sturges", "sqrt")
BOXES_MAX = 10_000  # on one picture
LABELS_MAX = 2048  # labels of one axis of a heat map
LABEL_CHARS_MAX = 32
CONFIG_BYTES_MAX = 1 << 20  # of a mesh, as JSON
LIST_MAX = max(ROW_VALUES_MAX, BINS_MAX + 1, BOXES_MAX, LABELS_MAX)  # of the lists among a record's attributes

# --- pictures --------------------------------------------------------------------------------------------------

COLORMAPS = ("viridis", "magma", "gray", "coolwarm")
CHANNELS_MAX = 4
PIXELS_MAX = 1 << 26  # of a picture or a whole grid: 8192 by 8192, far beyond what a browser shows well
RESCALE_MAX = 16
MATRIX_VALUES_MAX = 1 << 26  # of a heat map
MATRIX_AXIS_MAX = 1 << 20
GIF_SIDE_MAX = 65_535  # pixels
GIF_HUNDREDTHS_MAX = 65_535  # of a second, for one frame
GIF_FRAMES_MAX = GIF_HUNDREDTHS_MAX  # each takes memory of its own, and where they are equal they become one

# --- sounds, curves, charts ------------------------------------------------------------------------------------

SAMPLE_RATE_MAX = 1_000_000
SOUND_CHANNELS_MAX = 2
THRESHOLDS_MAX = 10_000  # of one curve
LAYOUT_BYTES_MAX = 1 << 20
HPARAMS_BYTES_MAX = 1 << 20

# --- embeddings ------------------------------------------------------------------------------------------------

POINTS_MAX = 1 << 20
NUMBERS_MAX = 1 << 24
SPRITE_SIDE_MAX = 8192  # pixels; what browsers take (https://github.com/lanpa/tensorboardX/issues/516)

# --- graphs ----------------------------------------------------------------------------------------------------

NODES_MAX = 1 << 18  # of one graph; TensorBoard's tab is slow from some ten thousand on
NODE_NAME_BYTES_MAX = 1 << 14  # a node's name, with its scopes, and its operation
NODE_ATTRIBUTES_BYTES_MAX = 1 << 16  # what a node says of itself; TensorBoard shows 1,024 bytes
NODE_DIMENSIONS_MAX = 64  # of a shape; those that torch's own operations take
GRAPH_BYTES_MAX = 1 << 26  # all of it, as text
MODEL_BYTES_MAX = 1 << 26  # of the file of a model as it is sent

"""The methods of a writer for media: pictures, figures, heat maps, videos, sounds."""

from __future__ import annotations

from typing import Any

from ..protocol import kinds
from ..values import media
from ..values.arrays import snapshot, widened
from .base import WriterBase
from .overrides import is_overridden


class MediaMethods(WriterBase):
    """Part of `SummaryWriter`."""

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
        *,
        color: Any = None,
    ) -> None:
        """Log a picture. The call copies it; the daemon encodes it.

        Args:
            tag: name of the picture.
            img_tensor: 1 to 4 channels; uint8 as it is, bool and floating point in [0, 1], clipped; other integers in
                [0, 255], clipped, or black and white if all are 0 or 1.
            global_step, walltime, color: as in `add_scalar`.
            dataformats: the order of axes: ``CHW``, ``HWC``, ``HW``, ``WH``, or with ``N`` for a grid of several.

        Raises:
            ValueError: the shape does not fit ``dataformats``, or has another number of channels.
        """
        self._tbxd_image(tag, img_tensor, global_step, walltime, dataformats, color, batched=False)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
        *,
        color: Any = None,
    ) -> None:
        """Log several pictures as one grid; ``img_tensor`` is N pictures, or a list of them. See `add_image`."""
        self._tbxd_image(tag, img_tensor, global_step, walltime, dataformats, color, batched=True)

    def _tbxd_image(
        self,
        tag: str,
        value: Any,
        global_step: Any,
        walltime: float | None,
        dataformats: str,
        color: Any,
        batched: bool,
    ) -> None:
        if not self._tbxd_write:
            return
        array = snapshot(value, f"{'add_images' if batched else 'add_image'} {tag!r}")
        attrs = media.image_attrs(array, dataformats, batched)
        self._tbxd_array(kinds.IMAGE, tag, array, attrs, global_step, walltime, color)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: Any = None,
        close: bool = True,
        walltime: float | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a matplotlib figure, or a list of them as one grid. The call draws it; the daemon encodes it.

        Args:
            tag: name of the picture.
            figure: a figure or a list of figures.
            global_step, walltime, color: as in `add_scalar`.
            close: close the figures afterwards.
        """
        if not self._tbxd_write:
            return
        array = media.figure_to_array(figure, close)
        if is_overridden(self, "add_image"):  # which the originals call for it
            several = len(array.shape) == 4
            pixels = widened(array)  # the axis of the colours before height and width, as there
            pixels = pixels.transpose((0, 3, 1, 2) if several else (2, 0, 1))
            self.add_image(tag, pixels, global_step, walltime, dataformats="NCHW" if several else "CHW")
            return
        attrs = media.image_attrs(array, "NHWC" if len(array.shape) == 4 else "HWC", len(array.shape) == 4)
        self._tbxd_array(kinds.IMAGE, tag, array, attrs, global_step, walltime, color)

    def add_heatmap(
        self,
        tag: str,
        matrix: Any,
        global_step: Any = None,
        walltime: float | None = None,
        colormap: str = "viridis",
        vmin: float | None = None,
        vmax: float | None = None,
        row_labels: Any = None,
        column_labels: Any = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a matrix as a colour-mapped picture with a scale. The call copies it; the daemon draws it.

        Args:
            tag: name of the picture.
            matrix: two axes, rows from top to bottom; numbers of any kind. Values that are not finite are drawn apart.
            global_step, walltime, color: as in `add_scalar`.
            colormap: ``viridis``, ``magma``, ``gray`` or ``coolwarm``.
            vmin, vmax: ends of the scale; None is the least and the greatest value. Fix them to compare steps.
            row_labels, column_labels: a text for each row and column.

        Raises:
            ValueError, TypeError: not two axes, an unknown colour map, or the wrong number of labels.
        """
        if not self._tbxd_write:
            return
        array = snapshot(matrix, f"add_heatmap {tag!r}")
        attrs = media.heatmap_attrs(array, colormap, vmin, vmax, row_labels, column_labels)
        self._tbxd_array(kinds.HEATMAP, tag, array, attrs, global_step, walltime, color)

    def add_image_with_boxes(
        self,
        tag: str,
        img_tensor: Any,
        box_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: Any = "CHW",
        labels: Any = None,
        rescale: Any = 1,
        *,
        color: Any = None,
    ) -> None:
        """Log a picture with boxes, which the daemon draws on it.

        Args:
            tag: name of the picture.
            img_tensor: as in `add_image`.
            box_tensor: shape (N, 4): left, top, right and bottom of each box, in pixels.
            global_step, walltime, color: as in `add_scalar`.
            dataformats: as in `add_image`. torch has ``rescale`` in its place; a number here is that.
            labels: a text for each box; if their number differs, they are left out.
            rescale: the factor by which the picture is enlarged.

        Raises:
            ValueError, TypeError: as `add_image`, and for boxes that are not (N, 4).
        """
        if not self._tbxd_write:
            return
        if not isinstance(dataformats, str):  # torch: rescale, dataformats, labels
            rescale, dataformats, labels = dataformats, labels if isinstance(labels, str) else "CHW", rescale
            labels = None if isinstance(labels, int | float) else labels
        picture = snapshot(img_tensor, f"add_image_with_boxes {tag!r}")
        boxes = snapshot(box_tensor, f"the boxes of {tag!r}")
        attrs = media.image_attrs(picture, dataformats, False) | media.boxes_attrs(boxes, labels, rescale)
        arrays = {"image": picture, "boxes": boxes}
        self._tbxd_array(kinds.BOXES, tag, arrays, attrs, global_step, walltime, color)

    def add_video(
        self,
        tag: str,
        vid_tensor: Any,
        global_step: Any = None,
        fps: float | None = 4,
        walltime: float | None = None,
        dataformats: str = "NTCHW",
        *,
        color: Any = None,
    ) -> None:
        """Log a video, shown as an animated GIF in the IMAGES tab. The call copies it; the daemon encodes it.

        Args:
            tag: name of the video.
            vid_tensor: N videos of T frames side by side; values as in `add_image`.
            global_step, walltime, color: as in `add_scalar`.
            fps: frames a second, at most 50 (a GIF's limit).
            dataformats: the order of axes, the letters of ``NTCHW`` in any order; without N it is one video.

        Raises:
            ValueError, TypeError: the shape does not fit ``dataformats``, or fps is not a positive number.
        """
        if not self._tbxd_write:
            return
        array = snapshot(vid_tensor, f"add_video {tag!r}")
        attrs = media.video_attrs(array, dataformats, fps)
        self._tbxd_array(kinds.VIDEO, tag, array, attrs, global_step, walltime, color)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int | None = 44100,
        walltime: float | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a sound, mono or stereo. The call copies it; the daemon encodes it as WAV, 16 bits.

        Args:
            tag: name of the sound.
            snd_tensor: shape (frames,), (frames, 1 or 2) as for tensorboardX or (1 or 2, frames) as for torch; floating
                point from -1 to 1, clipped, int16 as it is, or other integers as samples of their width.
            global_step, walltime, color: as in `add_scalar`.
            sample_rate: frames a second.

        Raises:
            ValueError, TypeError: another shape, other numbers, or a sample rate that is not a positive integer.
        """
        if not self._tbxd_write:
            return
        array = snapshot(snd_tensor, f"add_audio {tag!r}")
        attrs = media.audio_attrs(array, sample_rate)
        self._tbxd_array(kinds.AUDIO, tag, array, attrs, global_step, walltime, color)

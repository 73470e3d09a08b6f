"""``GlobalSummaryWriter``: one writer for all modules, threads and processes of a program, which counts the steps.

tensorboardX keeps the counts in a helper process. Here no process of the program counts: records go to the daemon
without a step, and the daemon gives each the step after the last one of its tag in the run. So steps follow the order
in the file, for all threads and processes, and continue where an earlier life of the run ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from .writer import SummaryWriter, stats_of
from .writers.file_writer import FileWriter
from .writers.watching import KINDS


class _Numbered(SummaryWriter):
    """Writes records without steps."""

    _tbxd_beside = True
    _tbxd_numbered = True


class GlobalSummaryWriter:
    """A `SummaryWriter` whose methods need no step; the daemon counts the steps of each tag, from 0 on.

    Several threads may use it, forked processes, and spawned processes that receive it. It has every method of
    `SummaryWriter`. Those of tensorboardX take the same arguments as there; the others take those of `SummaryWriter`
    without ``global_step``. A step passed as ``global_step`` replaces the count.

    If several processes log at once, the daemon counts in the order in which it receives their records.

    Args:
        logdir, comment, purge_step, max_queue, flush_secs, filename_suffix, write_to_disk, log_dir, ranks, reduce,
            system, resume: as for `SummaryWriter`.
        coalesce_process, **kwargs: accepted and ignored.
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
        write_to_disk: bool = True,
        log_dir: str | os.PathLike[str] | None = None,
        coalesce_process: bool = True,
        *,
        ranks: str | None = None,
        reduce: Mapping[str, str] | None = None,
        system: float | None = None,
        resume: str | None = None,
        **kwargs: Any,
    ) -> None:
        arguments: dict[str, Any] = {
            "filename_suffix": filename_suffix,
            "ranks": ranks,
            "reduce": reduce,
            "system": system,
            "resume": resume,
        }
        self.smw = SummaryWriter(
            logdir,
            comment,
            purge_step,
            max_queue,
            flush_secs,
            write_to_disk=write_to_disk,
            log_dir=log_dir,
            **arguments,
        )
        self._tbxd_counted = _Numbered(self.smw._tbxd_own.directory, write_to_disk=write_to_disk, **arguments)
        self._tbxd_counted._tbxd_own.described = self.smw._tbxd_own.described
        self._tbxd_counted._tbxd_own.named_as(self.smw._tbxd_own)
        self._tbxd_counted._tbxd_given["purge_step"] = purge_step  # for the runs below; this one has been told

    def _tbxd_writer(self, global_step: Any) -> SummaryWriter:
        return self._tbxd_counted if global_step is None and self.smw._tbxd_default_step is None else self.smw

    @staticmethod
    def getSummaryWriter() -> GlobalSummaryWriter:
        """Return the writer that this process and its forks share; the first call makes it, with a default folder."""
        # Without a lock, which a fork might catch locked: one that is made in vain has done nothing yet.
        return _made.get("") or _made.setdefault("", GlobalSummaryWriter())

    # --- what is counted -------------------------------------------------------------------------------------

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        walltime: float | None = None,
        display_name: str = "",
        summary_description: str = "",
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log one number; see `SummaryWriter.add_scalar`."""
        self._tbxd_writer(global_step).add_scalar(
            tag, scalar_value, global_step, walltime, display_name, summary_description, color=color
        )

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Mapping[str, Any] | None = None,
    ) -> None:
        """Log several numbers as curves of one chart; see `SummaryWriter.add_scalars`."""
        self._tbxd_writer(global_step).add_scalars(main_tag, tag_scalar_dict, global_step, walltime, color=color)

    def log(self, values: Mapping[str, Any], step: Any = None, walltime: float | None = None) -> None:
        """Log many numbers in one call, at one step after the last step of each; see `SummaryWriter.log`."""
        self._tbxd_writer(step).log(values, step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log the distribution of an array; see `SummaryWriter.add_histogram`."""
        self._tbxd_writer(global_step).add_histogram(tag, values, global_step, bins, walltime, max_bins, color=color)

    def add_histograms(
        self,
        named: Mapping[str, Any] | Iterable[tuple[str, Any]],
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
        *,
        prefix: str = "",
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log the distributions of several arrays; see `SummaryWriter.add_histograms`."""
        self._tbxd_writer(global_step).add_histograms(
            named, global_step, bins, walltime, max_bins, prefix=prefix, color=color
        )

    def watch(
        self,
        model: Any,
        every: int = 100,
        what: str | Iterable[str] = KINDS,
        *,
        prefix: str = "",
        step: Callable[[], Any] | None = None,
    ) -> None:
        """Log the parameters and gradients of a model by themselves; see `SummaryWriter.watch`."""
        self.smw.watch(model, every, what, prefix=prefix, step=step)

    def unwatch(self, model: Any = None) -> None:
        """End `watch`; see `SummaryWriter.unwatch`."""
        self.smw.unwatch(model)

    def add_histogram_raw(
        self,
        tag: str,
        min: float,
        max: float,
        num: float,
        sum: float,
        sum_squares: float,
        bucket_limits: Any,
        bucket_counts: Any,
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a histogram that has been computed already; see `SummaryWriter.add_histogram_raw`."""
        self._tbxd_writer(global_step).add_histogram_raw(
            tag, min, max, num, sum, sum_squares, bucket_limits, bucket_counts, global_step, walltime, color=color
        )

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        walltime: float | None = None,
        dataformats: str = "CHW",
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a picture; see `SummaryWriter.add_image`."""
        self._tbxd_writer(global_step).add_image(tag, img_tensor, global_step, walltime, dataformats, color=color)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        walltime: float | None = None,
        dataformats: str = "NCHW",
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log several pictures as one grid; see `SummaryWriter.add_images`."""
        self._tbxd_writer(global_step).add_images(tag, img_tensor, global_step, walltime, dataformats, color=color)

    def add_image_with_boxes(
        self,
        tag: str,
        img_tensor: Any,
        box_tensor: Any,
        walltime: float | None = None,
        dataformats: Any = "CHW",
        labels: Any = None,
        rescale: Any = 1,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a picture with boxes drawn on it; see `SummaryWriter.add_image_with_boxes`."""
        self._tbxd_writer(global_step).add_image_with_boxes(
            tag, img_tensor, box_tensor, global_step, walltime, dataformats, labels, rescale, color=color
        )

    def add_figure(
        self,
        tag: str,
        figure: Any,
        close: bool = True,
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a matplotlib figure; see `SummaryWriter.add_figure`."""
        self._tbxd_writer(global_step).add_figure(tag, figure, global_step, close, walltime, color=color)

    def add_heatmap(
        self,
        tag: str,
        matrix: Any,
        walltime: float | None = None,
        colormap: str = "viridis",
        vmin: float | None = None,
        vmax: float | None = None,
        row_labels: Any = None,
        column_labels: Any = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a matrix as a colour-mapped picture; see `SummaryWriter.add_heatmap`."""
        self._tbxd_writer(global_step).add_heatmap(
            tag, matrix, global_step, walltime, colormap, vmin, vmax, row_labels, column_labels, color=color
        )

    def add_video(
        self,
        tag: str,
        vid_tensor: Any,
        fps: float | None = 4,
        walltime: float | None = None,
        dataformats: str = "NTCHW",
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a video; see `SummaryWriter.add_video`."""
        self._tbxd_writer(global_step).add_video(tag, vid_tensor, global_step, fps, walltime, dataformats, color=color)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        sample_rate: int | None = 44100,
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a sound; see `SummaryWriter.add_audio`."""
        self._tbxd_writer(global_step).add_audio(tag, snd_tensor, global_step, sample_rate, walltime, color=color)

    def add_text(
        self,
        tag: str,
        text_string: str,
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a text; see `SummaryWriter.add_text`."""
        self._tbxd_writer(global_step).add_text(tag, text_string, global_step, walltime, color=color)

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a precision-recall curve; see `SummaryWriter.add_pr_curve`."""
        self._tbxd_writer(global_step).add_pr_curve(
            tag, labels, predictions, global_step, num_thresholds, weights, walltime, color=color
        )

    def add_pr_curve_raw(
        self,
        tag: str,
        true_positive_counts: Any,
        false_positive_counts: Any,
        true_negative_counts: Any,
        false_negative_counts: Any,
        precision: Any,
        recall: Any,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a precision-recall curve that has been computed already; see `SummaryWriter.add_pr_curve_raw`."""
        self._tbxd_writer(global_step).add_pr_curve_raw(
            tag,
            true_positive_counts,
            false_positive_counts,
            true_negative_counts,
            false_negative_counts,
            precision,
            recall,
            global_step,
            num_thresholds,
            weights,
            walltime,
            color=color,
        )

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: Any = None,
        walltime: float | None = None,
        *,
        global_step: Any = None,
        color: Any = None,
    ) -> None:
        """Log a mesh; see `SummaryWriter.add_mesh`."""
        self._tbxd_writer(global_step).add_mesh(
            tag, vertices, colors, faces, config_dict, global_step, walltime, color=color
        )

    def add_tensor(
        self, tag: str, tensor: Any, walltime: float | None = None, *, global_step: Any = None, color: Any = None
    ) -> None:
        """Log the numbers of a tensor; see `SummaryWriter.add_tensor`."""
        self._tbxd_writer(global_step).add_tensor(tag, tensor, global_step, walltime, color=color)

    # --- the rest --------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of the `SummaryWriter`, for everything without steps to count."""
        if name.startswith("_") or name == "smw":  # not there yet: this is being unpickled or copied
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.smw, name)

    @contextmanager
    def use_metadata(self, *, global_step: Any = None, walltime: float | None = None) -> Iterator[GlobalSummaryWriter]:
        """Set a default step or wall time for calls in this context; a step set here is not counted."""
        with self.smw.use_metadata(global_step=global_step, walltime=walltime):
            before, self._tbxd_counted._tbxd_now = self._tbxd_counted._tbxd_now, self.smw._tbxd_now
            try:
                yield self
            finally:
                self._tbxd_counted._tbxd_now = before

    def stats(self) -> dict[str, Any]:
        """Return the counts of this process's records; see `SummaryWriter.stats`."""
        return stats_of([*self.smw._tbxd_runs, *self._tbxd_counted._tbxd_runs])

    @property
    def file_writer(self) -> FileWriter:
        """The file writer for the caller's own protocol buffers; their steps are not counted."""
        found: FileWriter = self.smw._get_file_writer()
        return found

    def close(self) -> None:
        """Flush; see `SummaryWriter.close`."""
        self.smw.close()

    def __enter__(self) -> GlobalSummaryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_made: dict[str, GlobalSummaryWriter] = {}  # under "", where it has been made

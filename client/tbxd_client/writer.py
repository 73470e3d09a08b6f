"""``SummaryWriter``: the interface of tensorboardX and ``torch.utils.tensorboard``, in front of the journal.

This module does what must happen in the trainer: it checks arguments, and copies data that training may overwrite in
its next step. The daemon makes histograms, pictures and event files. Invalid arguments raise immediately; logging
failures never raise.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, cast

from .config import settings
from .config.paths import configured_address, is_remote, native_path
from .config.settings import warn
from .distributed.rank_detection import Identity, default_folder
from .distributed.rank_policy import member
from .journal.journal import CLOSED, STORING, JournalClosed
from .journal.journal_files import WORD_COMMIT
from .protocol import kinds, records
from .protocol.limits import ROW_VALUES_MAX
from .protocol.records import DESCRIPTION_BYTES_MAX, FLOAT64_BYTE, SCALAR_BYTES, SCALAR_HEAD_STRUCT
from .session.run_handle import Run, run_of
from .session.session import Counts, active, flush
from .statistics.tensorflow_bins import tensorflow_edges
from .values import log_values, media
from .values.arrays import to_float, to_number, to_step
from .values.log_values import told_apart
from .values.named import named_arrays
from .values.names import clean_tag, given_tag, parse_color, short_text, text_of
from .values.numbers import Numbers
from .writers import readback, watching
from .writers.base import Computed, FixedTime, Given
from .writers.file_writer import ADDING, EventFileWriter, FileWriter
from .writers.interception import Intercepted
from .writers.kept_points import REMOTE_POINTS_MAX, UNWRITTEN_POINTS_MAX, KeptPoints
from .writers.media_methods import MediaMethods
from .writers.overrides import Watched, is_ours, is_overridden
from .writers.plugin_methods import PluginMethods
from .writers.strict_mode import soften

_pack_scalar_into = SCALAR_HEAD_STRUCT.pack_into
_NOT_HELD = "cannot release un-acquired lock"  # RuntimeError of a lock; the same in Python 3.10 to 3.14
_PLAIN_NUMBERS = frozenset((float, int))  # those that struct packs without calling anybody


SYSTEM_SECONDS = 10.0  # between samples of the node that are asked for without a number


class SummaryWriter(MediaMethods, PluginMethods):
    """Logs to a folder that TensorBoard reads.

    Args:
        logdir: the folder of the run. None or "": ``runs/<date>_<time>_<host><comment>`` in the working directory, or
            for a job of several ranks one name for all of them (docs/RANKS.md).
        comment: appended to that default name.
        purge_step: the run continues from this step; TensorBoard discards points of an earlier life at or after it.
        max_queue, flush_secs: accepted for compatibility; records reach the file within a quarter of a second.
        filename_suffix: appended to the name of the event file.
        write_to_disk: False makes every method do nothing.
        log_dir: torch's name of ``logdir``, used when that is None.
        ranks: how a job of several ranks is logged. ``"reduce"``: the values of all ranks at one tag and step become
            one point, with its spread; ``"all"``: each rank logs to ``<logdir>/rank<r>``; ``"zero"``: only rank 0 logs.
            None is ``TBXD_RANKS``, ``"reduce"`` by default. With a single rank all are the same.
        reduce: tag, or pattern of tags as in ``fnmatch``, to the reduction of its values over ranks: ``"mean"``,
            ``"sum"``, ``"min"``, ``"max"``, ``"last"``, ``"p50"``, ``"p95"``, ``"p99"``, ``"all"``. The first pattern
            that matches applies; ``TBXD_REDUCE`` comes after them.
        comet_config, **kwargs: accepted and ignored.
        resume: whether records of this process replace those of an earlier process at the same tags and later steps.
            ``"auto"``: if this process is known to be a restart of it (docs/EVENT_FILE.md, "Resume"); ``"always"``;
            ``"never"``. Records that do not replace others go to a run of their own below this one. None is
            ``TBXD_RESUME``, ``"auto"`` by default. The first writer of a folder in a process decides.
        system: seconds between two samples of this machine (processors, memory, GPUs, …), 1 to 3600, which the daemon
            shows beside the run. True: every 10; 0 or False: none. None: the daemon's setting
            (`TBXD_SYSTEM_SECONDS`). The first writer of a folder in a process decides.

    Raises:
        TypeError, ValueError: an argument has another type, is out of range, or is not one of the possible words.

    Nothing starts or connects before the first record. A writer can be pickled, and used by several threads and by
    forked and spawned processes.
    """

    logdir = Given("logdir")
    purge_step = Given("purge_step")
    kwargs = Given("kwargs")
    max_queue, _max_queue = Given("max_queue"), Given("max_queue")  # torch's name and tensorboardX's
    flush_secs, _flush_secs = Given("flush_secs"), Given("flush_secs")
    filename_suffix, _filename_suffix = Given("filename_suffix"), Given("filename_suffix")
    _write_to_disk = Given("write_to_disk")
    _comet_config = Given("comet_config")

    def __new__(cls, *arguments: Any, **more: Any) -> SummaryWriter:
        """Apply ``TBXD_STRICT`` of this process, to unpickled writers as well."""
        soften(SummaryWriter)
        writer = super().__new__(cls)
        writer._tbxd_set = {}
        return writer

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
        comet_config: Mapping[str, Any] | None = None,
        *,
        ranks: str | None = None,
        reduce: Mapping[str, str] | None = None,
        system: float | None = None,
        resume: str | None = None,
        **kwargs: Any,
    ) -> None:
        place = member(ranks, reduce)
        given = logdir or log_dir or _default_logdir(comment, place.who, write_to_disk and place.writes)
        job = chosen = os.fsdecode(given)
        if not self._tbxd_beside:
            chosen = place.folder(job)
        self._tbxd_folder = chosen
        self._tbxd_write = self._tbxd_disk = bool(write_to_disk) and place.writes
        described: dict[str, Any] = {} if system is None else {"system": _system_seconds(system)}
        if (resumes := _resume(resume)) != settings.AUTO:
            described["resume"] = resumes
        if chosen != job:  # a rank's part of it
            described["above"] = os.path.realpath(native_path(job))
        self._tbxd_own = run_of(chosen, place, filename_suffix, self._tbxd_numbered, self._tbxd_write, described)
        self._tbxd_run = self._tbxd_own
        self._tbxd_subruns: dict[str, Run] = {}
        self._tbxd_named: dict[str, str] = {}
        self._tbxd_charts = {}
        self._tbxd_exported: dict[str, tuple[bytes, int]] = {}
        self._tbxd_given = {
            "logdir": given if chosen == job and not isinstance(given, bytes) else chosen,
            "purge_step": purge_step,
            "max_queue": max_queue,
            "flush_secs": flush_secs,
            "filename_suffix": filename_suffix,
            "write_to_disk": write_to_disk,
            "comet_config": comet_config,
            "kwargs": kwargs,
        }
        self._tbxd_now = time.time
        self._tbxd_default_step = None
        self._tbxd_next_step = 0 if purge_step is None else to_step(purge_step)  # of `log`, where it is given none
        self._tbxd_kept: KeptPoints | None = None  # for `scalar_dict`, where no event file can be read for it
        if not write_to_disk:
            self._tbxd_kept = KeptPoints(UNWRITTEN_POINTS_MAX)
        elif self._tbxd_disk and is_remote(configured_address() or ""):
            self._tbxd_kept = KeptPoints(REMOTE_POINTS_MAX)
        self._tbxd_layout = {}
        self._tbxd_opened_in = os.getpid()
        if self._tbxd_write and purge_step is not None:
            self._tbxd_own.text(kinds.RESTART, "", to_step(purge_step), time.time(), None)
        self._tbxd_set["file_writer"] = None
        if is_overridden(self, "_get_file_writer"):
            self._tbxd_set["all_writers"] = None  # as it is in the originals when they first call it
        self._get_file_writer()
        self._tbxd_look()

    # --- scalars ---------------------------------------------------------------------------------------------

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        display_name: str = "",
        summary_description: str = "",
        *,
        color: Any = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Log one number.

        Args:
            tag: name of the curve.
            scalar_value: a number, the text of one, or an array or tensor with one element.
            global_step: integer step; None is 0. A fraction is cut off, with one warning.
            walltime: seconds since the epoch; None is now.
            display_name, summary_description: shown by TensorBoard instead of and beside the tag. Bools are torch's
                ``new_style`` and ``double_precision``.
            color: ``#rrggbb``, a name or an (r, g, b) tuple; kept with the tag in the event file.
            new_style, double_precision: accepted for torch; TensorBoard shows float32 either way.

        Raises:
            TypeError, ValueError: the value or the step is not a single number, or the colour or the tag is invalid.
        """
        if type(scalar_value) is not float:
            scalar_value = to_number(scalar_value, tag)
        if type(global_step) is not int:
            global_step = self._tbxd_step(global_step)
        now = self._tbxd_now  # two statements: as one it is looked up as a method, which takes longer
        walltime = now() if walltime is None else to_float(walltime, "walltime")
        run = self._tbxd_run
        try:
            head = run.scalars[tag]
        except (KeyError, TypeError):
            head = 0
        if head and color is None and not display_name and not summary_description:
            journal: Any = run.journal
            lock = journal.lock
            # As `with lock` would, in half the time: nothing can come between `try` and the end of `acquire`.
            try:
                lock.acquire()
                # From here on whoever interrupts this on this thread, and logs, is put off until the commit. Without a
                # trace or profile function nobody can, and nothing may be called before the store that lets one.
                limit, journal.limit = journal.limit, STORING
                start = journal.position
                end = start + SCALAR_BYTES
                if end <= limit:
                    try:
                        _pack_scalar_into(
                            journal.buffer,
                            start - journal.base,
                            head,
                            global_step,
                            FLOAT64_BYTE,
                            walltime,
                            FLOAT64_BYTE,
                            scalar_value,
                        )
                        journal.position = end
                        journal.limit = limit
                        journal.words[WORD_COMMIT] = journal.position
                        run.counts.accepted += 1
                        return
                    # A step that is none; or who has interrupted this has closed the journal, and another takes it.
                    except (struct.error, TypeError, ValueError, JournalClosed):
                        limit = CLOSED  # the long way opens it again
                        to_step(global_step)  # which raises
                journal.limit = limit
            finally:
                try:
                    lock.release()
                except RuntimeError as error:
                    if error.args != (_NOT_HELD,):  # a signal handler's own; else one has raised while this waited
                        raise
        if not self._tbxd_write:
            return
        run.scalar(
            given_tag(tag),
            to_step(global_step),
            walltime,
            scalar_value,
            parse_color(color) if color is not None else "",
            # torch has new_style and double_precision in these places.
            "" if isinstance(display_name, bool) else clean_tag(display_name),
            "" if isinstance(summary_description, bool) else short_text(summary_description, DESCRIPTION_BYTES_MAX),
        )

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: Any = None,
        walltime: float | None = None,
        *,
        color: Mapping[str, Any] | None = None,
    ) -> None:
        """Log several numbers as curves of one chart.

        As in tensorboardX each key is a run of its own, ``<logdir>/<main_tag>/<key>``, with the tag ``main_tag``.

        Args:
            main_tag: name of the chart.
            tag_scalar_dict: curve name to number.
            global_step, walltime: as in `add_scalar`.
            color: curve name to colour.

        Raises:
            ValueError: two curves have the same name as text (``1`` and ``"1"``), or the same folder.
        """
        if self._tbxd_run is not self._tbxd_own:
            self._get_file_writer()
        if not self._tbxd_disk and self._tbxd_kept is None:
            return
        tag, step, walltime = clean_tag(main_tag), self._tbxd_step(global_step), self._tbxd_time(walltime)
        color = {} if color is None else color
        for name, given in (("tag_scalar_dict", tag_scalar_dict), ("color", color)):
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} is {type(given).__name__}; a dictionary is expected")
        colors = {text_of(key): parse_color(chosen) for key, chosen in color.items() if chosen is not None}
        numbers = {text_of(key): to_number(value, tag) for key, value in tag_scalar_dict.items()}
        if len(numbers) < len(tag_scalar_dict) or len(set(map(clean_tag, numbers))) < len(numbers):
            raise ValueError(f"two keys of {tag!r} have the same name as text: {list(tag_scalar_dict)!r:.200}")
        if self._tbxd_kept is not None:
            for key, value in numbers.items():
                self._tbxd_kept.add(
                    os.path.join(self._tbxd_folder, tag, clean_tag(key)),  # noqa: PTH118 - named as tensorboardX does
                    *(walltime, step, value),
                )
            if not self._tbxd_disk:
                return
        runs = {key: self._tbxd_subrun(f"{tag}/{clean_tag(key)}") for key in numbers}  # all of them before any is used
        for key, value in numbers.items():
            self._tbxd_charts[f"{tag}/{clean_tag(key)}"] = tag
            runs[key].scalar(tag, step, walltime, value, colors.get(key, ""))

    def export_scalars_to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the points of `add_scalars` since the last export to a JSON file, in the form of `scalar_dict`.

        Args:
            path: the file; an existing one is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        with open(path, "w") as file:
            found, ends = self._tbxd_read_back()
            json.dump(found, file)
        self._tbxd_exported.update(ends)
        if self._tbxd_kept is not None:
            self._tbxd_kept.clear()

    @Computed
    def scalar_dict(self) -> dict[str, list[list[float]]]:
        """The points that this process has logged with `add_scalars` since the last export.

        They are read back from the event files after a flush of at most ``TBXD_FLUSH_SECONDS``. The files hold float32;
        each value is the shortest number that rounds to it. If the daemon is on another host, up to
        `kept_points.REMOTE_POINTS_MAX` points are kept in memory, as they were given.

        Returns:
            {folder of the curve: [[wall time, step, value], ...]}, with the folder names of tensorboardX.
        """
        return self._tbxd_read_back()[0]

    def _tbxd_read_back(self) -> tuple[dict[str, list[list[float]]], dict[str, tuple[bytes, int]]]:
        if self._tbxd_kept is not None:
            return self._tbxd_kept.read(), {}
        logged = active()
        if self._tbxd_charts and logged is not None:
            logged.flush(closing=True)
            if not logged.all_written:
                warn(
                    f"{self._tbxd_folder}: not all scalars are in the event files yet; those that are not are left out"
                )
        found: dict[str, list[list[float]]] = {}
        ends = {}
        for name, tag in list(self._tbxd_charts.items()):
            run = self._tbxd_subrun(name)
            session = run.session_id
            before, after = self._tbxd_exported.get(name, (b"", 0))
            points, end = readback.points(run.directory, tag, session, after if before == session else 0)
            ends[name] = session, end
            if points:
                found[os.path.join(self._tbxd_folder, name)] = points  # noqa: PTH118 - named as tensorboardX does
        return found, ends

    def log(self, values: Mapping[str, Any], step: Any = None, walltime: float | None = None) -> None:
        """Log many values of one step in one call.

        Args:
            values: tag to value. A number is a scalar, as in `add_scalar`. A dictionary is a group: ``{"train":
                {"loss": 1}}`` is the tag ``train/loss``. A text, an image of Pillow, a figure of matplotlib, a uint8
                array of a picture's shape, and any other array are logged as such; see `log_values.told_apart`. The
                same keys and plain numbers every step are cheapest.
            step: integer step. None is the step after the last call of `log`, starting at ``purge_step`` or 0; within
                `use_metadata` it is the step given there.
            walltime: as in `add_scalar`.

        Raises:
            TypeError, ValueError: a value, a tag or the step is invalid; nothing of the call is logged then.
        """
        if not self._tbxd_write:
            return
        if not isinstance(values, Mapping):
            raise TypeError(f"values is {type(values).__name__}; a dictionary is expected")
        if not values:
            return
        if type(step) is not int:
            step = self._tbxd_next_step if step is None and self._tbxd_default_step is None else self._tbxd_step(step)
        walltime = self._tbxd_time(walltime)
        tags = tuple(values)
        numbers = list(values.values())
        row = self._tbxd_run.known_row(tags)
        if row is not None and _PLAIN_NUMBERS.issuperset(map(type, numbers)):
            try:
                if self._tbxd_run.packed(row.record(step, walltime, numbers)):
                    self._tbxd_next_step = step + 1
                    return
            except (struct.error, TypeError, ValueError):
                pass  # said better below
        step = to_step(step)
        told = told_apart(values)
        scalars = [one for one in told if one.kind == log_values.SCALAR]
        clean, numbers = tuple(one.tag for one in scalars), [one.value for one in scalars]
        for first in range(0, len(clean), ROW_VALUES_MAX):
            last = first + ROW_VALUES_MAX
            self._tbxd_run.values(clean[first:last], step, walltime, numbers[first:last])
        self._tbxd_log_others([one for one in told if one.kind != log_values.SCALAR], step, walltime)
        self._tbxd_next_step = step + 1

    def _tbxd_log_others(self, told: list[log_values.Told], step: int, walltime: float) -> None:
        for one in told:
            if one.kind == log_values.TEXT:
                self._tbxd_text(kinds.TEXT, one.tag, one.value, step, walltime)
            elif one.kind == log_values.FIGURE:
                SummaryWriter.add_figure(self, one.tag, one.value, step, False, walltime)
            elif one.kind == log_values.PICTURE:
                self._tbxd_array(kinds.IMAGE, one.tag, one.value, {"dataformats": one.dataformats}, step, walltime)
            else:
                numbers = Numbers(one.value, f"log {one.tag!r}")
                self._tbxd_histogram(one.tag, numbers, {"bins": "tensorflow"}, step, walltime)

    # --- arrays ----------------------------------------------------------------------------------------------

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log the distribution of an array.

        The call copies a small array, and the daemon counts the bins. The numbers of a large one are counted in the
        call, without a copy: from 16 MiB on, and from 64 KiB on where many are logged, or where the journal is about
        half full. The counts are the same.

        Args:
            tag: name of the histogram.
            values: an array, tensor or list of numbers, of any shape; it may require grad. Each rank logs its own part
                of a DTensor, and the daemon makes one histogram of the whole tensor.
            global_step, walltime, color: as in `add_scalar`.
            bins: ``'tensorflow'``, or a name, number or edges as in ``numpy.histogram``.
            max_bins: bins are merged until about this many are left.

        Values that are not finite are left out. An array without a finite value does not raise; it is counted
        as dropped (``no_finite_values``). Complex numbers are logged by their real part.
        """
        if not self._tbxd_write:
            return
        what = f"add_histogram {tag!r}"
        tag = given_tag(tag)
        numbers = Numbers(values, what, self._tbxd_run.merges(tag))
        attrs = media.histogram_attrs(bins, max_bins)
        self._tbxd_histogram(tag, numbers, attrs, global_step, walltime, color)

    def add_histograms(
        self,
        named: Mapping[str, Any] | Iterable[tuple[str, Any]],
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
        *,
        prefix: str = "",
        color: Any = None,
    ) -> None:
        """Log the distributions of several arrays, such as all parameters of a model, under one wall time.

        Args:
            named: a mapping of names to arrays, or (name, array) pairs: ``model.named_parameters()``, or for gradients
                ``((name, p.grad) for name, p in model.named_parameters())``. An array that is None is left out: a
                parameter has no gradient before the first backward pass.
            prefix: put before each name, which makes the tag: ``"gradients/"``.
            global_step, bins, walltime, max_bins, color: as in `add_histogram`, which is called for each array.

        Raises:
            TypeError: ``named`` gives something else than such pairs.
            TypeError, ValueError: as `add_histogram`; the arrays before the wrong one are logged.
        """
        if not self._tbxd_write:
            return
        when = self._tbxd_time(walltime)
        for name, values in named_arrays(named, "add_histograms"):
            if values is not None:
                tag = f"{prefix}{name}" if prefix else name
                self.add_histogram(tag, values, global_step, bins, when, max_bins, color=color)

    def watch(
        self,
        model: Any,
        every: int = 100,
        what: str | Iterable[str] = watching.KINDS,
        *,
        prefix: str = "",
        step: Callable[[], Any] | None = None,
    ) -> None:
        """Log the parameters and gradients of a model of torch by themselves, after each n-th step of its optimizer.

        Logged are for each tensor its histogram (``gradients/NAME``), its L2 norm (``norms/gradients/NAME``) and its
        share of zeros (``zeros/gradients/NAME``), and the norm of all (``norms/gradients``). The first tensor that has
        numbers which are not finite is named: in the text ``tbxd/nonfinite`` and, once, on stderr. Gradients are those
        that the step has used, of all backward passes since the one before; parameters are those that it has made.

        The parts of a DTensor get a histogram of the whole tensor, but no norm. The model and its backward pass may be
        compiled; nothing is logged where the step of the optimizer is.

        Args:
            model: a ``torch.nn.Module``, which may be wrapped or compiled. It is watched until it is gone, or until
                `unwatch` or `close`. To watch it again ends the watch before.
            every: steps of the optimizer from one that is logged to the next; the first one is. Where several
                optimizers have parameters of the model, the steps of one are counted.
            what: ``"parameters"``, ``"gradients"``, or both.
            prefix: put before each tag.
            step: a function without arguments that gives the step to log at. Without one the steps of the optimizer
                are counted, from 0 on.

        Raises:
            TypeError: the model is none of torch, or ``step`` no function.
            ValueError: ``every`` or ``what`` is not one of those.
            RuntimeError: torch is older than 2.0.
        """
        watching.watch(self, model, every, what, prefix, step)

    def unwatch(self, model: Any = None) -> None:
        """End `watch` of a model, or of all models that this writer watches."""
        watching.unwatch(self, model)

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
        global_step: Any = None,
        walltime: float | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a precomputed histogram.

        Args:
            tag: name of the histogram.
            min, max, num, sum, sum_squares: of all values.
            bucket_limits: the upper end of each bucket, ascending.
            bucket_counts: the number of values in each.
            global_step, walltime, color: as in `add_scalar`.

        Raises:
            ValueError, TypeError: the numbers of limits and counts differ, or a value is not a number.
        """
        if not self._tbxd_write:
            return
        arrays, attrs = media.raw_histogram(
            bucket_limits, bucket_counts, min=min, max=max, num=num, sum=sum, sum_squares=sum_squares
        )
        self._tbxd_array(kinds.HISTOGRAM_RAW, tag, arrays, attrs, global_step, walltime, color)

    # --- text ------------------------------------------------------------------------------------------------

    def add_text(
        self,
        tag: str,
        text_string: str,
        global_step: Any = None,
        walltime: float | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a text; TensorBoard renders it as Markdown, under ``<tag>/text_summary`` as with the originals."""
        if not self._tbxd_write:
            return
        self._tbxd_text(kinds.TEXT, tag, text_of(text_string), global_step, walltime, color)

    @contextmanager
    def use_metadata(self, *, global_step: Any = None, walltime: float | None = None) -> Iterator[SummaryWriter]:
        """Set a default step or wall time for calls in this context.

        Args:
            global_step, walltime: as in `add_scalar`; one of them at least.

        Raises:
            ValueError, TypeError: both are missing, or one is invalid.
        """
        if global_step is None and walltime is None:
            raise ValueError("use_metadata needs global_step or walltime")
        before = self._tbxd_default_step, self._tbxd_now
        if global_step is not None:
            self._tbxd_default_step = to_step(global_step)
        if walltime is not None:
            self._tbxd_now = FixedTime(to_float(walltime, "walltime"))
        try:
            with self._get_file_writer().use_metadata(global_step=global_step, walltime=walltime):
                yield self
        finally:
            self._tbxd_default_step, self._tbxd_now = before

    # --- life ------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything that this process has logged so far is in the event files.

        It never waits for other ranks of the job. Records that the daemon keeps until they have logged the same tags
        stay in this process's journal and count as pending in `stats` (docs/RANKS.md).

        Args:
            timeout: seconds; None is ``TBXD_FLUSH_MS``, 40 ms by default. After a wait in vain, None does not wait
                until a daemon makes progress.

        Returns:
            True if all records are written, or only wait for other ranks. False if the daemon took longer (the records
            are safe in the journal), or if records since the last flush could not be kept. `stats` counts those, and
            records refused as invalid, such as a histogram without any finite value.
        """
        for other in self._tbxd_others():
            other.flush()
        return flush(timeout)

    def close(self) -> None:
        """Flush, for at most ``TBXD_FLUSH_SECONDS``, 5 by default; the end of a ``with`` does the same.

        It includes records of this run from ended children of this process. A writer can be closed twice, and logs
        again if it is used again.

        ``file_writer`` and ``all_writers`` are None afterwards, as in both originals, until the writer is used again.
        """
        watching.unwatch(self)
        for other in self._tbxd_others():
            other.flush()
            other.close()
        session = active()
        if session is not None:
            session.flush(closing=True)
        self.all_writers = None  # type: ignore[assignment]  # until it is used again
        self.file_writer = None
        if self._tbxd_disk and self._tbxd_opened_in == os.getpid():
            self._tbxd_own.leave_file()

    def stats(self) -> dict[str, Any]:
        """Count the records that this process has logged to this run and its sub-runs.

        Returns:
            ``accepted``: records, one for each call of a method; ``written``: those in the event files, as last
            reported by the daemon; ``dropped``: those that will never be written, {reason: records}; ``pending``: the
            rest, safe in the journal: accepted = written + pending + dropped. ``waiting_bytes``: bytes in the journal
            of this process, of all runs, that are not yet known to be in an event file; ``journal_bytes``: its limit.
        """
        return stats_of(self._tbxd_runs)

    @Computed
    def all_writers(self) -> dict[str, FileWriter]:
        """The file writers of this run and of each run that `add_scalars` has made below it, by folder."""
        below = {
            os.path.join(self._tbxd_folder, name): FileWriter.of(self._tbxd_subrun(name), name)  # noqa: PTH118
            for name in list(self._tbxd_charts)
        }
        return {self._tbxd_folder: self._get_file_writer(), **below}

    @Computed
    def default_bins(self) -> list[float]:
        """The edges of TensorFlow's bins for histograms: 0, and both ways from 1e-12 to 1e20 by factors of 1.1."""
        edges: list[float] = tensorflow_edges().tolist()
        return edges

    file_writer: Any = Watched()

    @Watched
    def _get_file_writer(self) -> FileWriter:
        """Return the file writer for the caller's own protocol buffers; the first call after `close` makes another."""
        if self.file_writer is None:
            self._tbxd_set.pop("all_writers", None)
            own = self._tbxd_own if self._tbxd_disk else None
            self.file_writer = FileWriter.of(own, self._tbxd_folder, weakref.ref(self))
        found: FileWriter = self.file_writer
        return found

    def _tbxd_look(self) -> None:
        """Check whether the program has overridden the file writer, and if so, log through its replacement.

        The check runs when a writer is made and when an attribute is set, never in a call that logs.
        """
        own, file_writer = self._tbxd_own, self._tbxd_set.get("file_writer")
        if self._tbxd_numbered:  # the steps are not known here; see docs/COMPATIBILITY.md
            plain = True
        elif is_overridden(self, "_get_file_writer"):
            plain = False
        elif file_writer is None:
            plain = not _is_patched()
        else:
            bound = own if self._tbxd_disk else None
            plain = isinstance(file_writer, FileWriter) and file_writer._tbxd_plain_for(bound)
        if plain != (self._tbxd_run is own):
            through = Intercepted(own, lambda: self._get_file_writer(), self._tbxd_disk)  # noqa: PLW0108 - whatever it is by then
            self._tbxd_run = own if plain else cast(Run, through)
            self._tbxd_write = self._tbxd_disk or not plain

    def _tbxd_below(self, run: Run) -> Run:
        if not _is_patched():
            return run
        return cast(Run, Intercepted(run, lambda: FileWriter.of(run, run.directory), True))

    def _tbxd_others(self) -> list[Any]:
        """Return the file writers in ``all_writers`` that are not ours; they are flushed and closed with this one."""
        all_writers = self._tbxd_set.get("all_writers")
        if not isinstance(all_writers, Mapping):
            return []
        return [one for one in all_writers.values() if type(one) is not FileWriter]

    @Computed
    def log_dir(self) -> str | os.PathLike[str]:
        """The folder of the run, as it was given."""
        given: str | os.PathLike[str] = self._tbxd_given["logdir"]
        return given

    def get_logdir(self) -> str:
        """Return the folder of the run, as it was given, as text."""
        return self._tbxd_folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            try:
                setattr(self, name, value)  # not through `__dict__`; see `overrides.is_overridden`
            except AttributeError:  # a property of a subclass's own, which has set it before that was there
                self.__dict__[name] = value
        self._tbxd_set = dict(self._tbxd_set)
        self._tbxd_opened_in = 0
        self._tbxd_run, self._tbxd_write = self._tbxd_own, self._tbxd_disk
        if type(self.file_writer) is FileWriter:
            self.file_writer._tbxd_told = weakref.ref(self)
        self._tbxd_look()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_patched() -> bool:
    """Return True if the program has patched methods of our file writer classes."""
    return not all(is_ours(getattr(FileWriter, name)) for name in ADDING) or not is_ours(EventFileWriter.add_event)


def stats_of(runs: list[Run]) -> dict[str, Any]:
    """Count the records that this process has logged to these runs; see `SummaryWriter.stats`."""
    total = Counts()
    # Runs of one folder share theirs.
    for counts in {id(counts): counts for run in runs for counts in (*run.earlier, run.counts)}.values():
        total.add(counts)
    missing = total.missing
    session = active()
    journal = session.journal if session is not None else None
    return {
        "accepted": total.accepted,
        "written": total.written,
        "pending": total.accepted - total.written - sum(missing.values()),
        "dropped": missing,
        "waiting_bytes": session.waiting if session is not None else 0,
        "journal_bytes": journal.bytes_max if journal else 0,
    }


def _system_seconds(system: Any) -> float:
    least, most = records.SYSTEM_SECONDS_MIN, records.SYSTEM_SECONDS_MAX
    seconds = SYSTEM_SECONDS if system is True else to_float(system, "system")
    if seconds and not least <= seconds <= most:
        raise ValueError(f"system is {system!r:.80}; {least} to {most} seconds, or 0, are possible")
    return seconds


_default_folders: set[str] = set()  # that this process has made


def _resume(word: str | None) -> str:
    """
    Raises:
        ValueError: the word is not a choice of ``TBXD_RESUME``.
    """
    if word is None:
        return settings.read_choice(settings.RESUME)
    if word not in settings.RESUME.choices:
        raise ValueError(f"resume={word!r:.80}: {', '.join(map(repr, settings.RESUME.choices))} are possible")
    return word


def _default_logdir(comment: str, who: Identity, make: bool) -> str:
    """Return the default folder of a writer: that of its job, or one that no other process has.

    Args:
        comment: appended to its name.
        who: the identity of this process in its job.
        make: make the folder if it is not a job's, so that a process that starts in the same second takes another.
    """
    if name := default_folder(who):
        return os.path.join("runs", name + comment)  # noqa: PTH118 - shown to the user as it is
    name = time.strftime("%b%d_%H-%M-%S") + "_" + os.uname().nodename + comment
    for number in itertools.count():
        folder = os.path.join("runs", f"{name}_{number}" if number else name)  # noqa: PTH118
        if not make or os.path.abspath(folder) in _default_folders:  # noqa: PTH100
            return folder
        try:
            os.makedirs(folder)  # noqa: PTH103
        except FileExistsError:
            continue
        except OSError:  # said by whoever makes the run
            return folder
        _default_folders.add(os.path.abspath(folder))  # noqa: PTH100
        return folder
    raise AssertionError

"""The methods of a writer for TensorBoard's other tabs: curves, meshes, tensors, layouts of charts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..protocol import kinds
from ..values import embedding, hparams, model_files, plots
from ..values.arrays import Array, snapshot
from ..values.names import clean_tag
from .base import WriterBase
from .file_writer import CPU_RUN_METADATA, FileWriter, run_metadata_event
from .interception import Intercepted

HPARAMS_TAG = "_hparams_"  # beginning of the tags where the HPARAMS tab looks
LAYOUT_TAG = "custom_scalars__config__"  # where the tab looks for it


class PluginMethods(WriterBase):
    """Part of `SummaryWriter`."""

    _tbxd_layout: dict[str, dict[str, list[Any]]]

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a precision-recall curve. The call copies its input; the daemon computes it.

        Args:
            tag: name of the curve.
            labels: true or false, any shape.
            predictions: from 0 to 1, one for each label.
            global_step, walltime, color: as in `add_scalar`.
            num_thresholds: points of the curve, at most 10,000.
            weights: None, one number, or one for each label.

        Raises:
            ValueError, TypeError: the numbers of values differ, or a value is not a number. An empty curve is counted
                as dropped, ``no_values``.
        """
        if not self._tbxd_write:
            return
        arrays, attrs = plots.curve(labels, predictions, num_thresholds, weights)
        self._tbxd_array(kinds.PR_CURVE, tag, arrays, attrs, global_step, walltime, color)

    def add_pr_curve_raw(
        self,
        tag: str,
        true_positive_counts: Any,
        false_positive_counts: Any,
        true_negative_counts: Any,
        false_negative_counts: Any,
        precision: Any,
        recall: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a precomputed precision-recall curve.

        Args:
            tag: name of the curve.
            true_positive_counts, false_positive_counts, true_negative_counts, false_negative_counts, precision,
                recall: one number for each threshold.
            global_step, walltime, color: as in `add_scalar`.
            num_thresholds, weights: accepted; the arrays determine the number of thresholds.

        Raises:
            ValueError, TypeError: the numbers of values differ, or a value is not a number.
        """
        if not self._tbxd_write:
            return
        rows = plots.raw_curve(
            {
                "true_positive_counts": true_positive_counts,
                "false_positive_counts": false_positive_counts,
                "true_negative_counts": true_negative_counts,
                "false_negative_counts": false_negative_counts,
                "precision": precision,
                "recall": recall,
            }
        )
        self._tbxd_array(kinds.PR_CURVE_RAW, tag, rows, {}, global_step, walltime, color)

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: Any = None,
        global_step: Any = None,
        walltime: float | None = None,
        *,
        color: Any = None,
    ) -> None:
        """Log a mesh; without faces it is a point cloud.

        Args:
            tag: name of the mesh.
            vertices: shape (batch, vertices, 3).
            colors: the same shape, from 0 to 255.
            faces: shape (batch, faces, 3), the numbers of three vertices each.
            config_dict: cameras, lights and material, as three.js knows them.
            global_step, walltime, color: as in `add_scalar`.

        Raises:
            ValueError, TypeError: another shape, a value that is not a number, or a config that JSON cannot hold.
        """
        if not self._tbxd_write:
            return
        arrays, attrs = plots.mesh(vertices, colors, faces, config_dict)
        self._tbxd_array(kinds.MESH, tag, arrays, attrs, global_step, walltime, color)

    def add_tensor(
        self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None, *, color: Any = None
    ) -> None:
        """Log the numbers of a tensor, of any shape, for tools that read event files; no tab shows them.

        Args:
            tag: name of the tensor.
            tensor: numbers of any type.
            global_step, walltime, color: as in `add_scalar`.

        Raises:
            ValueError, TypeError: a value is not a number.
        """
        if not self._tbxd_write:
            return
        array = snapshot(tensor, f"add_tensor {tag!r}")
        self._tbxd_array(kinds.TENSOR, tag, array, {}, global_step, walltime, color)

    def add_custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Set which scalars the CUSTOM SCALARS tab shows in one chart. Several calls add up.

        Args:
            layout: {category: {chart: ["Multiline", [tags]]}}; a chart ``["Margin", [value, lower, upper]]`` shows a
                band. Tags are regular expressions.

        Raises:
            ValueError, TypeError: the layout has another form, or is too large.
        """
        self._tbxd_add_charts(layout)

    def _tbxd_add_charts(self, layout: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        if not self._tbxd_write:
            return
        charts = {category: dict(titles) for category, titles in self._tbxd_layout.items()}
        for category, titles in plots.layout(layout).items():
            charts.setdefault(category, {}).update(titles)
        text = plots.layout_text(charts)
        self._tbxd_layout = charts
        self._tbxd_text(kinds.CUSTOM_SCALARS, LAYOUT_TAG, text, None, None)

    def add_custom_scalars_multilinechart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Show several scalars in one chart of the CUSTOM SCALARS tab; see `add_custom_scalars`."""
        self._tbxd_add_charts({clean_tag(category): {clean_tag(title): ["Multiline", tags]}})

    def add_custom_scalars_marginchart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Show a scalar and its band, ``[value, lower, upper]``, in one chart; see `add_custom_scalars`."""
        self._tbxd_add_charts({clean_tag(category): {clean_tag(title): ["Margin", tags]}})

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        *arguments: Any,
        name: str | None = None,
        global_step: Any = None,
        hparam_domain_discrete: Mapping[str, list[Any]] | None = None,
        run_name: str | None = None,
    ) -> None:
        """Log hyper-parameters and metrics of a run, for the HPARAMS tab.

        As with both originals, each call is a row of the table and a run of its own below this one, so that a row
        changes no curve and no other row. Without a name the row is named by the time, and a name that exists is not
        used again; the ranks of a job share one.

        Args:
            hparam_dict: name to bool, number or text; None is left out, lists and others become text.
            metric_dict: name to number; a metric has the name of its scalar.
            arguments: ``name, global_step`` as for tensorboardX, or ``hparam_domain_discrete, run_name, global_step``
                as for torch.
            name, run_name: a run below this one to write to. ``"."``, or the path of this run, is the same as no name:
                a row has a run of its own.
            global_step: of the metrics.
            hparam_domain_discrete: name to the values that a hyper-parameter may have.

        Raises:
            ValueError, TypeError: an argument has another form, or is too large.
        """
        given = hparams.positional(arguments)
        values, metrics = hparams.values_of(hparam_dict), hparams.metrics_of(metric_dict)
        domains = hparams.domains_of(given.domains or hparam_domain_discrete, values)
        text = hparams.json_of(values, metrics, domains)
        step = self._tbxd_step(given.step if given.step is not None else global_step)
        wanted = ""
        for one in (given.name, name, run_name):
            wanted = wanted or ("" if one is None else clean_tag(os.fspath(one)))
        own = self._tbxd_own.directory
        if wanted and os.path.normpath(os.path.join(own, wanted)) == own:  # noqa: PTH118 - asks no disk
            wanted = ""  # "." or the run's own path, which would put the row among its curves
        if not self._tbxd_disk:
            return
        now = self._tbxd_now()
        run = self._tbxd_subrun(wanted or self._tbxd_run.new_name(str(now)))
        run.text(kinds.HPARAMS, HPARAMS_TAG, 0, now, text)
        for metric, value in metrics.items():
            run.scalar(metric, step, now, value)

    def add_embedding(
        self,
        mat: Any,
        metadata: Any = None,
        label_img: Any = None,
        global_step: Any = None,
        tag: str = "default",
        metadata_header: Any = None,
    ) -> None:
        """Log points with their labels and pictures for the PROJECTOR tab. The daemon writes its files.

        A call with the same tag and step replaces the points.

        Args:
            mat: shape (points, dimensions).
            metadata: a label for each point, or with ``metadata_header`` a list of labels for each.
            label_img: a picture for each point, shape (points, 1, 3 or 4, height, width); values as in `add_image`.
                A picture that is not square gets a black border.
            global_step: as in `add_scalar`.
            tag: name of the embedding.
            metadata_header: names of the columns of ``metadata``.

        Raises:
            ValueError, TypeError: the shapes do not fit each other, or a value is not a number. An embedding without
                points is counted as dropped, ``no_values``.
        """
        if not self._tbxd_write:
            return
        arrays = embedding.arrays_of(mat, metadata, label_img, metadata_header)
        self._tbxd_array(kinds.EMBEDDING, tag, arrays, {}, global_step, None)

    def add_graph(
        self,
        model: Any,
        input_to_model: Any = None,
        verbose: bool = False,
        use_strict_trace: bool = True,
        *,
        walltime: float | None = None,
    ) -> None:
        """Log the graph of a model, for the GRAPHS tab.

        This call runs the model once, in eval mode, while torch traces it; afterwards the modes of its modules and
        random numbers are as before. The tab shows the same nodes as with torch's own writer.

        Args:
            model: a ``torch.nn.Module``; a traced or scripted one is shown as it is.
            input_to_model: the input of the model: a tensor, a dictionary, or a tuple of arguments.
            verbose: print the graph as torch has it.
            use_strict_trace: False allows a model to return a list or a dictionary; ``strict`` of ``torch.jit.trace``.
            walltime: as in `add_scalar`.

        Raises:
            TypeError: ``model`` is not a torch module.
            ValueError: the graph is too large, see `limits.NODES_MAX`.
            Exception: the model raises, or torch cannot trace it; nothing is logged.
        """
        if not self._tbxd_write:
            return
        from ..values import graph

        now = self._tbxd_time(walltime)
        if isinstance(self._tbxd_run, Intercepted) and self._tbxd_run.graph(
            model, input_to_model, bool(verbose), bool(use_strict_trace), now
        ):
            return
        text = graph.text_of(model, input_to_model, bool(verbose), bool(use_strict_trace))
        if not self._tbxd_disk:
            return
        self._tbxd_text(kinds.GRAPH, "", text, None, now)
        own = FileWriter.of(self._tbxd_own, self._tbxd_own.directory)
        own._tbxd_log(run_metadata_event(CPU_RUN_METADATA), self._tbxd_step(None), now)

    def add_onnx_graph(self, onnx_model_file: Any = None, *, prototxt: Any = None) -> None:
        """Log the graph of an ONNX model, for the GRAPHS tab.

        This call reads the file, without its weights. The daemon makes the graph and needs ``onnx`` for it
        (``pip install onnx``); without it the record is counted as dropped (``onnx_not_installed``).

        Args:
            onnx_model_file: the path of the model, or an open file, in protobuf.
            prototxt: torch's name of ``onnx_model_file``.

        Raises:
            OSError: the file cannot be read.
            TypeError, ValueError: no file, not an ONNX model, or one whose graph is too large
                (`limits.MODEL_BYTES_MAX`).
        """
        if self._tbxd_write:
            data = model_files.onnx_graph(prototxt if onnx_model_file is None else onnx_model_file)
            self._tbxd_array(kinds.ONNX_GRAPH, "", Array("|u1", (len(data),), data), {}, None, None)

    def add_openvino_graph(self, xmlname: Any) -> None:
        """Log the graph of an OpenVINO model, for the GRAPHS tab. This call reads the file.

        Args:
            xmlname: the path of the model's ``.xml`` file, or an open file.

        Raises:
            OSError: the file cannot be read.
            TypeError, ValueError: no file, or one that is too large (`limits.MODEL_BYTES_MAX`).
        """
        if self._tbxd_write:
            data = model_files.openvino_xml(xmlname)
            self._tbxd_array(kinds.OPENVINO_GRAPH, "", Array("|u1", (len(data),), data), {}, None, None)

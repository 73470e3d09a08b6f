"""TensorBoard's own readers: the fast loader (the data server, the default) and the slow one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.data import server_ingester
from tensorboard.data.provider import RunTagFilter
from tensorboard.util import grpc_util

from harness import wait_for

ALL = 10_000_000
LOADERS = ("fast", "slow")
SHOWN = ("fast", pytest.param("slow", marks=pytest.mark.long))  # where each takes long


class Board:
    """The contents of a log folder as TensorBoard would show them."""

    def __init__(self, provider: Any, reload: Callable[[], None]) -> None:
        self._provider = provider
        self._reload = reload
        self._context = RequestContext()

    def runs(self) -> set[str]:
        """Names of the runs."""
        return {run.run_name for run in self._provider.list_runs(self._context, experiment_id="")}

    def tags(self, plugin: str = "scalars") -> dict[str, set[str]]:
        """Run to tags of a plugin."""
        return {run: set(tags) for run, tags in self._listing(plugin).items()}

    def metadata(self, run: str, tag: str, plugin: str = "scalars") -> Any:
        """Return the loader's metadata of a tag (a TimeSeries)."""
        return self._listing(plugin)[run][tag]

    def _listing(self, plugin: str) -> Any:
        listing = {"scalars": self._provider.list_scalars, "images": self._provider.list_blob_sequences}
        ask = listing.get(plugin, self._provider.list_tensors)
        return ask(self._context, experiment_id="", plugin_name=plugin)

    def scalars(self, run: str, tag: str) -> list[tuple[int, float]]:
        """(step, value) of a tag."""
        return [(step, value) for step, _, value in self.timed_scalars(run, tag)]

    def timed_scalars(self, run: str, tag: str) -> list[tuple[int, float, float]]:
        """(step, wall time, value) of a tag."""
        found = self._provider.read_scalars(
            self._context,
            experiment_id="",
            plugin_name="scalars",
            downsample=ALL,
            run_tag_filter=RunTagFilter([run], [tag]),
        )
        return [(datum.step, datum.wall_time, datum.value) for datum in found.get(run, {}).get(tag, [])]

    def tensors(self, run: str, tag: str, plugin: str) -> list[tuple[int, Any]]:
        """(step, array) of a tag."""
        found = self._provider.read_tensors(
            self._context,
            experiment_id="",
            plugin_name=plugin,
            downsample=ALL,
            run_tag_filter=RunTagFilter([run], [tag]),
        )
        return [(datum.step, datum.numpy) for datum in found.get(run, {}).get(tag, [])]

    def blobs(self, run: str, tag: str, plugin: str = "images") -> list[tuple[int, list[bytes]]]:
        """(step, blobs) of a tag; of an image width and height as text, then the encoded picture."""
        found = self._provider.read_blob_sequences(
            self._context,
            experiment_id="",
            plugin_name=plugin,
            downsample=ALL,
            run_tag_filter=RunTagFilter([run], [tag]),
        )
        return [
            (
                datum.step,
                [self._provider.read_blob(self._context, blob_key=item.blob_key) for item in datum.values],
            )
            for datum in found.get(run, {}).get(tag, [])
        ]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true value of ``condition``, asked again after each reload."""

        def attempt() -> Any:
            self._reload()
            return condition()

        return wait_for(attempt, f"{what} in TensorBoard", 20)


@contextmanager
def board(logdir: Path, loader: str) -> Iterator[Board]:
    """Load a log folder as ``tensorboard --load_fast=true`` or ``--load_fast=false`` would, and keep all points."""
    samples = dict.fromkeys(("scalars", "histograms", "images", "text"), ALL)
    if loader == "fast":
        ingester = server_ingester.SubprocessServerDataIngester(
            server_binary=server_ingester.get_server_binary(),
            logdir=str(logdir),
            reload_interval=1,
            channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
            samples_per_plugin=samples,
        )
        ingester.start()
        try:
            yield Board(ingester.data_provider, lambda: None)
        finally:
            ingester._stdin_handle.close()  # the server ends with it
    else:
        multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance=samples)

        def reload() -> None:
            multiplexer.AddRunsFromDirectory(str(logdir))
            multiplexer.Reload()

        yield Board(data_provider.MultiplexerDataProvider(multiplexer, str(logdir)), reload)

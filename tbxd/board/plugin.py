"""The plugin as TensorBoard loads it: routes, and JSON.

Written for TensorBoard's dynamic plugins, which are shown in a frame of their own
(https://github.com/tensorflow/tensorboard/blob/master/ADDING_A_PLUGIN.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from .curves import listing, points
from .live import Live

STATIC = Path(__file__).parent / "static"
FILES = {"index.js": "text/javascript", "chart.js": "text/javascript", "board.css": "text/css"}
BODY_MAX = 4 << 20  # bytes of a question: names of runs

App = Callable[[Any, Any], Any]


class TbxdPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """The tab "tbxd".

    Args:
        context: TensorBoard's. Of the log folder its ``data_provider`` alone is read: ``multiplexer`` is None with the
            fast loader.
    """

    plugin_name = "tbxd"

    def __init__(self, context: Any) -> None:
        self._provider = context.data_provider
        self._live = Live(context.logdir or "")

    def get_plugin_apps(self) -> dict[str, App]:
        """Paths below ``data/plugin/tbxd``."""
        return {
            **{f"/{name}": _file(name, kind) for name, kind in FILES.items()},
            "/live": self._serve_live,
            "/tags": self._serve_tags,
            "/points": self._serve_points,
        }

    def is_active(self) -> bool:
        """Always: also with an empty log folder it can be asked why nothing comes."""
        return True

    def frontend_metadata(self) -> Any:
        """The tab's name and its module."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="tbxd", disable_reload=True)

    @wrappers.Request.application  # type: ignore[untyped-decorator]
    def _serve_live(self, request: Any) -> Any:
        return _json(request, self._live.state())

    @wrappers.Request.application  # type: ignore[untyped-decorator]
    def _serve_tags(self, request: Any) -> Any:
        return _json(request, listing(self._provider, *_who(request)))

    @wrappers.Request.application  # type: ignore[untyped-decorator]
    def _serve_points(self, request: Any) -> Any:
        try:
            tag, runs = _wanted(request)
        except ValueError as error:
            return http_util.Respond(request, {"error": str(error)}, "application/json", code=400)
        curves = points(self._provider, *_who(request), tag, runs)  # which have neither NaN nor infinities
        return http_util.Respond(request, curves, "application/json")


def _who(request: Any) -> tuple[Any, str]:
    return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _wanted(request: Any) -> tuple[str, list[str]]:
    """The tag and the runs of a question: a POST, as names of many runs are longer than an address may be.

    Raises:
        ValueError: it is something else.
    """
    if request.method != "POST" or not 0 < (request.content_length or 0) <= BODY_MAX:
        raise ValueError(f"a POST with a body of at most {BODY_MAX:,} bytes is expected")
    body = json.loads(request.get_data())
    tag, runs = (body.get("tag"), body.get("runs")) if isinstance(body, dict) else (None, None)
    if not isinstance(tag, str) or not isinstance(runs, list) or not all(isinstance(run, str) for run in runs):
        raise ValueError('an object with a string "tag" and a list of strings "runs" is expected')
    return tag, runs


def _json(request: Any, value: Any) -> Any:
    return http_util.Respond(request, _finite(value), "application/json")


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not have: None in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _file(name: str, kind: str) -> App:
    def serve(request: Any) -> Any:
        return http_util.Respond(request, (STATIC / name).read_bytes(), kind)

    app: App = wrappers.Request.application(serve)
    return app

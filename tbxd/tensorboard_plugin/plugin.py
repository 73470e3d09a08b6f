"""The plugin that TensorBoard loads: routes, and JSON.

It is a dynamic plugin, which TensorBoard shows in a frame of its own
(https://github.com/tensorflow/tensorboard/blob/master/ADDING_A_PLUGIN.md).
"""

from __future__ import annotations

import hashlib
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
KINDS = {".js": "text/javascript", ".css": "text/css"}
BODY_MAX = 4 << 20  # bytes of a question: names of runs
DIGEST_BYTES = 12  # of an answer, which say whether the next is the same

App = Callable[[Any, Any], Any]


class TbxdPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """The tab "tbxd".

    Args:
        context: TensorBoard's. Only its ``data_provider`` reads the log folder: ``multiplexer`` is None with the fast
            loader.
    """

    plugin_name = "tbxd"

    def __init__(self, context: Any) -> None:
        self._provider = context.data_provider
        self._live = Live(context.logdir or "")

    def get_plugin_apps(self) -> dict[str, App]:
        """Return the routes below ``data/plugin/tbxd``."""
        return {
            **{f"/{path.name}": _file(path) for path in STATIC.iterdir() if path.suffix in KINDS},
            "/live": self._serve_live,
            "/tags": self._serve_tags,
            "/points": self._serve_points,
        }

    def is_active(self) -> bool:
        """Return True always: even with an empty log folder the tab shows why nothing comes."""
        return True

    def frontend_metadata(self) -> Any:
        """Return the tab's name and its module."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="tbxd", disable_reload=True)

    @wrappers.Request.application  # type: ignore[untyped-decorator]
    def _serve_live(self, request: Any) -> Any:
        return _json(request, self._live.state())

    @wrappers.Request.application  # type: ignore[untyped-decorator]
    def _serve_tags(self, request: Any) -> Any:
        return _news(request, request.args.get("known", ""), listing(self._provider, *_who(request)))

    @wrappers.Request.application  # type: ignore[untyped-decorator]
    def _serve_points(self, request: Any) -> Any:
        try:
            tag, runs, known = _wanted(request)
        except ValueError as error:
            return http_util.Respond(request, {"error": str(error)}, "application/json", code=400)
        return _news(request, known, points(self._provider, *_who(request), tag, runs))


def _who(request: Any) -> tuple[Any, str]:
    return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _wanted(request: Any) -> tuple[str, list[str], str]:
    """Return the tag, the runs, and the known digest of a request: a POST, as the names may be long.

    Raises:
        ValueError: the request has another form.
    """
    if request.method != "POST" or not 0 < (request.content_length or 0) <= BODY_MAX:
        raise ValueError(f"a POST with a body of at most {BODY_MAX:,} bytes is expected")
    body = json.loads(request.get_data())
    tag, runs = (body.get("tag"), body.get("runs")) if isinstance(body, dict) else (None, None)
    if not isinstance(tag, str) or not isinstance(runs, list) or not all(isinstance(run, str) for run in runs):
        raise ValueError('an object with a string "tag" and a list of strings "runs" is expected')
    return tag, runs, str(body.get("known", ""))


def _news(request: Any, known: str, value: Any) -> Any:
    """Respond with ``data`` and its ``digest``, which the next request sends back; only ``same`` if unchanged."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    digest = hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
    answer = '{"same":true}' if known == digest else f'{{"digest":"{digest}","data":{text}}}'
    return http_util.Respond(request, answer, "application/json")


def _json(request: Any, value: Any) -> Any:
    return http_util.Respond(request, _finite(value), "application/json")


def _finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _file(path: Path) -> App:
    def serve(request: Any) -> Any:
        return http_util.Respond(request, path.read_bytes(), KINDS[path.suffix])

    app: App = wrappers.Request.application(serve)
    return app

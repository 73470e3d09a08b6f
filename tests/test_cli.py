"""The command line as it is installed: help, exit codes, refusals."""

from __future__ import annotations

import json

import pytest

from harness import World
from tbxd.settings import SETTINGS


def test_help_names_every_setting_with_its_variable(place: World) -> None:
    text = place.tbxd("serve", "--help").stdout
    for setting in SETTINGS:
        assert "--" + setting.name.replace("_", "-") in text
        assert setting.variable in text.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("command", ["serve", "status", "stop", "demo"])
def test_every_command_explains_itself(place: World, command: str) -> None:
    result = place.tbxd(command, "--help")
    assert result.returncode == 0 and len(result.stdout.splitlines()) > 6


def test_exit_codes(place: World) -> None:
    assert place.tbxd("--version").stdout.startswith("tbxd, version ")
    assert place.tbxd("status").returncode == 3
    assert json.loads(place.tbxd("status", "--json").stdout) == {"running": False, "journals": []}
    assert place.tbxd("stop").returncode == 3
    assert place.tbxd("no-such-command").returncode == 2
    refused = place.tbxd("serve", "--batch-ms", "-1")
    assert refused.returncode == 1 and "batch-ms is -1; 0 to 60000 are possible" in refused.stderr
    refused = place.tbxd("serve", "--address", "http://x")
    assert refused.returncode == 1 and "expected ipc:///path" in refused.stderr


def test_a_client_setting_that_makes_no_sense_is_said_once_and_not_used(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        for name in "ab":
            with SummaryWriter(f"logs/{name}") as writer:
                writer.add_scalar("value", 1.0, 0)
        """,
        environ={"TBXD_FLUSH_SECONDS": "soon"},
    )
    assert result.returncode == 0
    assert result.stderr.count("TBXD_FLUSH_SECONDS='soon': 0 to 3600 seconds are possible; 5 is used") == 1

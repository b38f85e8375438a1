"""Ray clusters that cannot be joined, and paths that their nodes do not see."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from blip2cli.errors import OptionError
from blip2cli.options import RayOptions
from blip2cli.options.ray import parse_actors
from blip2cli.pipeline.compute.ray_cluster import _missing, join, last_line


def test_ray_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"ray needs Ray.*pip install 'blip2cli\[ray\]'"):
        join(RayOptions(ray=True))


@pytest.mark.parametrize("by_environment", [False, True])
def test_an_address_where_nothing_answers(
    by_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        if by_environment:
            monkeypatch.setenv("RAY_ADDRESS", address)
        options = RayOptions(ray=True, ray_address=None if by_environment else address)
        with pytest.raises(OptionError, match=f"nothing answers at {address}"):
            join(options)


def test_what_a_node_does_not_see(tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    assert _missing([str(tmp_path), elsewhere]) == [elsewhere]


def test_the_cause_is_below_the_traceback() -> None:
    assert last_line(RuntimeError("Traceback\n  File x\nValueError: this.\n")) == "ValueError: this"
    assert last_line(KeyError()) == "KeyError"


def test_numbers_of_actors() -> None:
    assert parse_actors("4") == (4, 4)
    assert parse_actors("2-16") == (2, 16)
    for wrong in ("0", "3-2", "many", "-1"):
        with pytest.raises(OptionError, match="no number of actors"):
            parse_actors(wrong)


def test_options_about_ray_need_it() -> None:
    with pytest.raises(OptionError, match="ray_address is about ray"):
        RayOptions(ray_address="auto")
    with pytest.raises(OptionError, match="Ray Client"):
        RayOptions(ray=True, ray_address="ray://head:10001")

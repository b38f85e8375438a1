"""Actors of a Ray cluster of several nodes: rows in order, whatever becomes of actors and nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blip2cli.errors import ModelError, RunError
from blip2cli.options import RayOptions
from blip2cli.pipeline.compute.ray_actors import RayActors
from tests.pipeline.compute.ray_nodes import Driven, Nodes, nodes, refs
from tests.pipeline.compute.stub_replica import rows_of_bursts, spec

pytestmark = [pytest.mark.external, pytest.mark.filterwarnings("default")]
SLOW = "sleep 0.05"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(1, 1) as made:
        yield made


def numbers(count: int, *but: int) -> list[str]:
    return [str(number) for number in range(count) if number not in but]


def test_rows_come_in_order_from_all_actors(cluster: Nodes) -> None:
    driven = Driven(cluster, refs(200, SLOW, n4="sleep 1"))
    assert driven.run() == numbers(200)
    assert len(driven.processes) == 2
    assert driven.ready.device == "auto of 2 Ray actors"
    assert driven.ready.batch_size == 4
    assert driven.ended == []


def test_rows_do_not_wait_for_paths_that_do_not_come(cluster: Nodes) -> None:
    options = RayOptions(ray=True, ray_address=cluster.address)
    rows = rows_of_bursts(
        lambda items, stdin: RayActors(spec(), options, items, (), lambda event: None, 60, stdin),
        (8, 8, 8),  # in batches of four
        "sleep 0.2",
    )
    assert [row["file_name"] for row in rows] == numbers(24)
    assert len({row["process"] for row in rows[16:]}) == 2


def test_what_a_killed_actor_had_is_done_again(cluster: Nodes) -> None:
    driven = Driven(cluster, refs(240, "sleep 0.1"))
    for number, _ in enumerate(driven):
        if number in (3, 13):
            driven.kill_actor()
    assert driven.names == numbers(240)
    assert not driven.failed
    assert set(driven.ended) == {"an actor was lost"}


def test_an_image_that_ends_actors_again_and_again_is_a_failed_one(cluster: Nodes) -> None:
    driven = Driven(cluster, refs(30, SLOW, n9="signal 11"))
    assert driven.run() == numbers(30, 9)
    assert list(driven.failed) == ["9"]
    assert driven.failed["9"].startswith("Running it ended the worker process")


def test_an_image_that_does_so_once_has_its_row(cluster: Nodes, tmp_path: Path) -> None:
    driven = Driven(cluster, refs(30, n9=f"once {tmp_path / 'm'} and signal 11"))
    assert driven.run() == numbers(30)


def test_an_actor_that_hangs_is_ended(cluster: Nodes, tmp_path: Path) -> None:
    images = refs(30, n9=f"once {tmp_path / 'm'} and sleep 600")
    driven = Driven(cluster, images, stall_timeout=2)
    assert driven.run() == numbers(30)
    assert "no progress for 2 s" in driven.ended


def test_a_model_that_cannot_be_loaded_is_the_users_error(cluster: Nodes) -> None:
    with pytest.raises(ModelError, match="There is no such device; take another"):
        Driven(cluster, refs(3), made=spec("user")).run()


def test_a_mistake_of_ours_is_raised_in_its_turn(cluster: Nodes) -> None:
    driven = Driven(cluster, refs(30, n9="raise"))
    with pytest.raises(ValueError, match="a mistake") as caught:
        driven.run()
    assert driven.names == numbers(8)
    assert "stub_replica.py" in caught.value.__notes__[0]


def test_a_cluster_without_room_is_refused(cluster: Nodes) -> None:
    with pytest.raises(RunError, match="room for 2 actors of 1 processors now, not for 3"):
        Driven(cluster, refs(3), actors=(3, 3)).run()


def test_a_lost_node_leaves_its_work_to_the_others(cluster: Nodes) -> None:
    driven = Driven(cluster, refs(160, SLOW), lost_seconds=1.0)
    for number, _ in enumerate(driven):
        if number == 3:
            cluster.kill(cluster.nodes.pop())
    assert driven.names == numbers(160)
    assert driven.ended == ["a node was lost, and the others have no room"]


def test_a_node_that_joins_is_used(cluster: Nodes) -> None:
    before = len(cluster.nodes)
    driven = Driven(cluster, refs(1600, SLOW), actors=(1, 3))
    for number, _ in enumerate(driven):
        if number == 3:
            cluster.nodes.append(cluster.add())
    assert driven.names == numbers(1600)
    assert driven.ready.device == f"auto of {before} to 3 Ray actors"
    assert len(driven.processes) == before + 1


def test_quick_batches_travel_together_and_are_blamed_one_by_one(cluster: Nodes) -> None:
    driven = Driven(cluster, refs(4000, n3500="signal 11", n3800="raise"))
    with pytest.raises(ValueError, match="a mistake"):
        driven.run()
    assert driven.names == numbers(3800, 3500)
    assert list(driven.failed) == ["3500"]
    assert driven.compute._put < 1000 / 2

"""Which share a process labels: as typed, or as its launcher says."""

from __future__ import annotations

import pytest

from blip2cli.errors import OptionError
from blip2cli.options import OutputOptions, RunOptions, SourceOptions
from blip2cli.options.shard import parse_shard

TORCHRUN = {"RANK": "2", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}
STEP = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
KUBERNETES = {"JOB_COMPLETION_INDEX": "7"}


def array(**numbers: int) -> dict[str, str]:
    """What SLURM tells a task of an array."""
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


ARRAY = array(ID=10, MIN=4, MAX=16, COUNT=5, STEP=3)


@pytest.mark.parametrize(
    ("text", "environment", "share"),
    [
        ("3/8", TORCHRUN, "3/8"),
        ("1/1", {}, "1/1"),
        ("03/08", {}, "3/8"),
        ("auto", TORCHRUN, "3/8"),
        ("auto/8", TORCHRUN, "3/8"),
        ("auto/8", {"RANK": "2"}, "3/8"),
        ("auto", STEP, "1/4"),
        ("auto", STEP | {"SLURM_STEP_NUM_TASKS": "2"}, "1/2"),  # srun -n 2 in a job of four tasks
        ("auto", array(ID=0, MIN=0, MAX=7, COUNT=8, STEP=1), "1/8"),
        ("auto", array(ID=8, MIN=1, MAX=8, COUNT=8), "8/8"),
        ("auto", array(ID=3, COUNT=8), "4/8"),
        ("auto/8", array(ID=3), "4/8"),
        ("auto", array(ID=5, MIN=5, MAX=5, COUNT=1), "1/1"),
        ("auto", ARRAY, "3/5"),
        ("auto", ARRAY | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "3/5"),  # any array's task
        ("auto", ARRAY | STEP, "9/20"),  # srun -n 4 in each task
        ("auto/20", ARRAY | STEP, "9/20"),
        ("auto/8", KUBERNETES, "8/8"),
        ("auto", KUBERNETES | TORCHRUN, "3/8"),
        ("auto", STEP | TORCHRUN, "3/8"),  # srun torchrun
        ("auto", {"RANK": "", "WORLD_SIZE": ""} | STEP, "1/4"),
    ],
)
def test_shares(text: str, environment: dict[str, str], share: str) -> None:
    assert parse_shard(text, environment) == share


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("3", {}, "'3' is no share; write 3/8"),
        ("-1/8", {}, "is no share"),
        ("1/٣", {}, "is no share"),
        ("auto/x", {}, "is no share"),
        ("0/8", {}, "counted from 1 to N; give 1/8 to 8/8"),
        ("9/8", {}, "give 1/8 to 8/8"),
        ("0/0", {}, "counted from 1"),
        ("auto", {}, "no launcher says which share this is"),
        ("auto/8", {}, "no launcher says which share this is"),
        ("auto", {"RANK": "1"}, "RANK is set, and WORLD_SIZE is not; set both"),
        ("auto", {"WORLD_SIZE": "2"}, "WORLD_SIZE is set, and RANK is not"),
        ("auto", {"SLURM_NTASKS": "2"}, "SLURM_NTASKS is set, and SLURM_PROCID is not"),
        ("auto", {"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, which is none of 2"),
        ("auto", {"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1', which is no number"),
        ("auto/4", TORCHRUN, "WORLD_SIZE says 8, not 4; give auto alone"),
        ("auto", array(ID=3), "SLURM_ARRAY_TASK_ID is set, and SLURM_ARRAY_TASK_COUNT is not"),
        ("auto", array(ID=5, MIN=1, MAX=7, COUNT=3), "no even series"),  # --array=1,5,7
        ("auto", array(ID=5, MIN=4, MAX=16, COUNT=5, STEP=3), "no even series"),
        ("auto/8", array(ID=3, MIN=3, MAX=5, COUNT=3), "COUNT says 3, not 8"),  # some run again
        ("auto", KUBERNETES, "how many completions there are; add their number: auto/8"),
        ("auto/7", KUBERNETES, "JOB_COMPLETION_INDEX is 7, which is none of 7"),
        ("auto/4", ARRAY | STEP, "says 20, not 4"),
    ],
)
def test_one_sentence(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        parse_shard(text, environment)
    assert caught.value.field == "shard"


@pytest.mark.parametrize(
    ("share", "name"),
    [(None, "{shard}.jsonl"), ("3/8", "3-of-8.jsonl"), ("3/16", "03-of-16.jsonl")],
)
def test_names_of_files_hold_the_share(share: str | None, name: str) -> None:
    output = OutputOptions("{shard}.jsonl", summary="{shard}.jsonl")
    options = RunOptions(source=SourceOptions((".",), shard=share), output=output)
    assert options.output.out == options.output.summary == name
    assert RunOptions(source=SourceOptions((".",), shard=share)).output == OutputOptions()


@pytest.mark.parametrize("text", ["1/" + "9" * 5000, "9" * 5000 + "/9", "auto/" + "9" * 5000])
def test_numbers_of_thousands_of_digits_are_no_shares(text: str) -> None:
    with pytest.raises(OptionError, match="is no share"):
        parse_shard(text, {})
    with pytest.raises(OptionError, match="is no number"):
        parse_shard("auto", {"RANK": "0", "WORLD_SIZE": text[-5000:].replace("/", "1")})

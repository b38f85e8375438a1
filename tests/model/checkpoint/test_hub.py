"""Downloads, in processes of their own against a hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blip2cli.model.checkpoint.hub import weights_to_fetch
from tests.adapters import adapter
from tests.checkpoints import tiny_random_itm
from tests.hub_checkpoints import older_opt, published_opt
from tests.hub_instruct import published_vicuna
from tests.hub_server import COMMIT, Hub, serve
from tests.hub_t5 import older_t5

REPO = "someone/blip2-opt"
PROGRAM = """
import sys
from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.resolve import resolve
try:
    print(resolve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None).path)
except ModelError as error:
    sys.exit(f"{error}")
"""
CHUNK = 4096
# Whole chunks are what a cut download keeps; huggingface_hub's own are of 10 MiB.
SMALL_CHUNKS = f"""
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = {CHUNK}
"""
# The write inside huggingface_hub fails as a full disk makes it fail; the rest is real.
FULL_DISK = """
import errno, huggingface_hub.file_download
def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")
huggingface_hub.file_download.http_get = full
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = published_opt(tmp_path_factory.mktemp("hub") / "published")
    # What must not be fetched: pickles beside safetensors, other formats, pictures.
    for name in ("pytorch_model-00001-of-00001.bin", "flax_model.msgpack", "README.md"):
        (directory / name).write_bytes(b"x" * 1000)
    (directory / "pytorch_model.bin.index.json").write_text('{"weight_map": {}}')
    return directory


@pytest.fixture
def hub(published: Path) -> Iterator[Hub]:
    with serve(Hub({REPO: published})) as running:
        yield running


def run(
    hub: Hub | None, home: Path, *arguments: str, program: str = PROGRAM, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Resolve a model in a fresh process whose cache is ``home``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    settings = {
        "HF_HOME": str(home),
        # Port 9 discards: nothing listens, and no real host is ever asked.
        "HF_ENDPOINT": hub.url if hub is not None else "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=kept | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence a failed run left on stderr, and nothing else."""
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith((".\n", "?\n"))
    return result.stderr.strip()


def test_download_then_use_of_the_cache_offline(hub: Hub, published: Path, tmp_path: Path) -> None:
    first = run(hub, tmp_path, REPO)
    assert (first.returncode, first.stderr) == (0, "")
    snapshot = Path(first.stdout.strip())
    got = {file.name for file in snapshot.iterdir()}
    unwanted = {
        "README.md",
        "flax_model.msgpack",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00001.bin",
    }
    assert got == {file.name for file in published.iterdir()} - unwanted
    assert all((snapshot / name).read_bytes() == (published / name).read_bytes() for name in got)
    assert set(hub.downloads()) == got
    assert max(hub.downloads().values()) == 1
    asked = len(hub.requests)

    offline = run(hub, tmp_path, REPO, HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, first.stdout)
    assert len(hub.requests) == asked
    # A hub that cannot be reached is no obstacle either.
    assert run(None, tmp_path, REPO).stdout == first.stdout
    # Online again: nothing is fetched twice, and a commit is as good a name as a branch.
    assert run(hub, tmp_path, REPO, COMMIT).stdout == first.stdout
    assert max(hub.downloads().values()) == 1


def test_cut_download_is_resumed(hub: Hub, published: Path, tmp_path: Path) -> None:
    shard = "model-00001-of-00002.safetensors"
    hub.cut_once.add(shard)
    result = run(hub, tmp_path, REPO, program=SMALL_CHUNKS + PROGRAM)
    assert (result.returncode, result.stderr) == (0, "")
    half = (published / shard).stat().st_size // 2
    assert hub.ranges(shard) == [None, f"bytes={half // CHUNK * CHUNK}-"]
    fetched = Path(result.stdout.strip()) / shard
    assert fetched.read_bytes() == (published / shard).read_bytes()


def test_connection_cut_again_and_again_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    shard = "model-00002-of-00002.safetensors"
    hub.cut_always.add(shard)
    said = sentence(run(hub, tmp_path, REPO))
    assert "was cut while someone/blip2-opt was downloaded; run the same command again" in said
    assert hub.downloads()[shard] > 1
    offline = sentence(run(hub, tmp_path, REPO, HF_HUB_OFFLINE="1"))
    assert "is only partly in the cache" in offline
    # The same command goes on with what arrived.
    hub.cut_always.clear()
    before = hub.downloads()
    assert run(hub, tmp_path, REPO).returncode == 0
    assert set(hub.downloads() - before) == {shard}


def test_server_in_trouble_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.failing = 1
    assert run(hub, tmp_path, REPO).returncode == 0


def test_offline_and_not_cached_names_every_way_on(hub: Hub, tmp_path: Path) -> None:
    for result in (run(hub, tmp_path, REPO, HF_HUB_OFFLINE="1"), run(None, tmp_path, REPO)):
        said = sentence(result)
        for way in ("model tiny", "HF_HOME", "a directory", REPO, "is not in the cache"):
            assert way in said
    assert hub.requests == []


def test_unknown_and_private_repositories(hub: Hub, published: Path, tmp_path: Path) -> None:
    said = sentence(run(hub, tmp_path, "someone/blip2-oopt"))
    assert "there is no model someone/blip2-oopt on the hub" in said
    assert "HF_TOKEN" in said
    hub.repos["me/secret"] = published
    hub.private["me/secret"] = "hf_right"
    assert "HF_TOKEN" in sentence(run(hub, tmp_path, "me/secret", HF_TOKEN="hf_wrong"))
    assert run(hub, tmp_path, "me/secret", HF_TOKEN="hf_right").returncode == 0


def test_gated_repository_names_its_page_and_the_token(hub: Hub, tmp_path: Path) -> None:
    hub.gated.add(REPO)
    said = sentence(run(hub, tmp_path, REPO))
    assert f"accept its terms at {hub.url}/{REPO} and set HF_TOKEN" in said


def test_unknown_revision(hub: Hub, tmp_path: Path) -> None:
    said = sentence(run(hub, tmp_path, REPO, "v9"))
    assert said == f"{REPO} has no revision v9; give a branch, tag or commit of it."


def test_other_models_are_told_before_their_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    (other / "model.safetensors").write_bytes(b"x" * 100)
    hub.repos["someone/llama"] = other
    assert "holds a llama, not a BLIP-2 model" in sentence(run(hub, tmp_path, "someone/llama"))
    assert hub.downloads()["model.safetensors"] == 0
    (other / "adapter_config.json").write_text("{}")
    said = sentence(run(hub, tmp_path, "someone/llama"))
    assert "someone/llama on the hub holds an adapter of PEFT, such as LoRA" in said
    assert hub.downloads()["model.safetensors"] == 0


def test_a_retrieval_model_is_refused_a_caption_before_torch_is_imported(tmp_path: Path) -> None:
    samples = Path(__file__).parents[3] / "sample_images"
    directory = tiny_random_itm(tmp_path / "itm")
    (directory / "vocab.txt").write_text("[PAD]\n")
    program = (
        "import sys\n"
        "from blip2cli.errors import OptionError\n"
        "from blip2cli.options import ModelOptions, RunOptions, SourceOptions\n"
        "from blip2cli.pipeline.image_items import ImageItems\n"
        "from blip2cli.pipeline.job import Job\n"
        "from blip2cli.pipeline.run import run\n"
        "from blip2cli.tasks.caption import CaptionTask\n"
        f"options = RunOptions(SourceOptions(({str(samples)!r},)), ModelOptions(sys.argv[1]))\n"
        "try:\n"
        "    run(Job(ImageItems(), CaptionTask(), options))\n"
        "except OptionError as error:\n"
        "    assert 'torch' not in sys.modules\n"
        "    sys.exit(str(error))\n"
    )
    with serve(Hub({REPO: directory})) as hub:
        said = sentence(run(hub, tmp_path / "home", REPO, program=program))
        assert said.startswith(f"{REPO} is a retrieval model: it compares images with texts")
        assert "vocab.txt" in hub.downloads()


@pytest.mark.parametrize("make", [older_opt, older_t5], ids=["opt", "t5"])
def test_pickles_are_fetched_only_where_there_is_nothing_else(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    older = make(tmp_path / "older", pickled=True)
    with serve(Hub({REPO: older})) as hub:
        result = run(hub, tmp_path / "home", REPO)
        assert result.returncode == 0, result.stderr
        got = {file.name for file in Path(result.stdout.strip()).iterdir()}
        assert got == {file.name for file in older.iterdir()}


def test_cache_that_cannot_be_written_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    # A file where the cache should be: refused for root too, unlike a read-only directory.
    (tmp_path / "hub").write_text("")
    said = sentence(run(hub, tmp_path, REPO))
    assert "set HF_HOME" in said


def test_full_disk_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    said = sentence(run(hub, tmp_path, REPO, program=FULL_DISK + PROGRAM))
    assert "the disk is full" in said
    assert "set HF_HOME to a larger disk" in said


@pytest.mark.parametrize(
    ("files", "want"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "pytorch_model.bin",
            ],
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (["model.fp16.safetensors"], []),
    ],
)
def test_wanted_weights(files: list[str], want: list[str]) -> None:
    assert weights_to_fetch(files) == want


WITH_ADAPTERS = """
import sys
from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.identity import model_identity, weights_identity
from blip2cli.model.checkpoint.resolve import resolve_model
from blip2cli.options import ModelOptions
for argument in sys.argv[1:]:
    name, *adapters = argument.split()
    options = ModelOptions(name, adapter=tuple(adapters))
    try:
        found = resolve_model(options)
    except ModelError as error:
        print(error)
        continue
    assert model_identity(options, None) == weights_identity(found)
    print(found.path, *(each.path.name for each in found.adapters), weights_identity(found)[:44])
"""


def test_adapters_come_from_the_hub_with_their_base_model(hub: Hub, tmp_path: Path) -> None:
    lora = adapter(tmp_path / "lora", REPO, {}, revision=COMMIT)
    (lora / "optimizer.pt").write_bytes(b"x" * 100)
    dora = adapter(tmp_path / "dora", REPO, {}, use_dora=True)
    hub.repos |= {"someone/lora": lora, "someone/dora": dora}
    home = tmp_path / "home"
    given = ("someone/lora", f"{REPO} someone/lora", f"{REPO} {REPO}", "someone/dora")
    first = run(hub, home, *given, program=WITH_ADAPTERS)
    assert (first.returncode, first.stderr) == (0, "")
    one, both, none, refused = first.stdout.splitlines()
    assert one == both
    assert one.endswith(f"snapshots/{COMMIT} {COMMIT} hub:{COMMIT}")
    assert "holds no adapter of PEFT (no adapter_config.json)" in none
    assert refused.startswith("someone/dora is an adapter of PEFT with DoRA, which is not merged")
    assert "optimizer.pt" not in hub.downloads()
    assert hub.downloads()["model.safetensors.index.json"] == 1
    offline = run(None, home, given[0], program=WITH_ADAPTERS, HF_HUB_OFFLINE="1")
    assert (offline.stdout, offline.stderr) == (f"{one}\n", "")


@pytest.mark.external
def test_both_tokenizers_of_an_instructblip_are_fetched(hub: Hub, tmp_path: Path) -> None:
    directory = published_vicuna(tmp_path / "vicuna")
    hub.repos["someone/vicuna"] = directory
    done = run(hub, tmp_path / "home", "someone/vicuna")
    assert done.returncode == 0, done.stderr
    fetched = Path(done.stdout.strip())
    names = {p.relative_to(fetched).as_posix() for p in fetched.rglob("*") if p.is_file()}
    assert names == {
        p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()
    }
    for missing in (directory / "qformer_tokenizer").iterdir():
        missing.unlink()
    refused = run(hub, tmp_path / "other", "someone/vicuna")
    assert (
        "lacks the tokenizer of its Q-Former (qformer_tokenizer/tokenizer.json)" in refused.stderr
    )

"""``blip2cli convert``: results into other formats and back, checkpoints into other layouts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from blip2cli.cli.flags.checkpoints import CheckpointFlags, convert_checkpoint, refuse
from blip2cli.cli.flags.declare import OUTPUT, REPORT, option
from blip2cli.cli.flags.options import QUIET_HELP, VERBOSE_HELP
from blip2cli.cli.terminal.messages import complain, unexpected
from blip2cli.errors import Blip2CliError, OptionError, spell_options
from blip2cli.exit_codes import SUCCESS

EXAMPLES = "Example:  blip2cli convert captions.jsonl captions.parquet"
if TYPE_CHECKING:
    from blip2cli.convert.options import ConvertOptions

FORMAT, IMAGES, IDS, TEXTS = "Format", "Images", "COCO and VQA", "Texts"


@dataclass(frozen=True)
class ConvertFlags:
    """What is converted into what."""

    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="Files, folders or globs in quotes, whose rows follow one another, or one "
            "checkpoint; last, what they become.",
            show_default=False,
        ),
    ]
    read_as: Annotated[
        str | None,
        option(
            "--from",
            metavar="FORMAT",
            panel=FORMAT,
            help="What SRC is, where its path does not tell: jsonl, parquet, csv, tsv, "
            "imagefolder, sidecar, npy, clip-retrieval.",
            show_default=False,
        ),
    ] = None
    write_as: Annotated[
        str | None,
        option(
            "--to",
            metavar="FORMAT",
            panel=FORMAT,
            help="What DST becomes, where its path does not tell: those of --from, coco, vqa, "
            "llava, webdataset, image-parquet.",
            show_default=False,
        ),
    ] = None
    overwrite: Annotated[
        bool, option("--overwrite", panel=OUTPUT, help="Replace OUT if it is there.")
    ] = False
    shard_size: Annotated[
        int | None,
        option(
            "--shard-size",
            metavar="N",
            min=1,
            panel=FORMAT,
            help="webdataset: samples a tar \\[default: 10000]; clip-retrieval: vectors a file "
            "\\[default: all].",
            show_default=False,
        ),
    ] = None
    text_column: Annotated[
        str | None,
        option(
            "--text-column",
            metavar="NAME",
            panel=TEXTS,
            help="The column of texts. \\[default: caption, or answer in results of ask]",
            show_default=False,
        ),
    ] = None
    prefix: Annotated[
        str,
        option("--prefix", metavar="TEXT", panel=TEXTS, help="sidecar: text before each caption."),
    ] = ""
    suffix: Annotated[
        str,
        option("--suffix", metavar="TEXT", panel=TEXTS, help="sidecar: text after each caption."),
    ] = ""
    sidecar_suffix: Annotated[
        Literal[".txt", ".caption"] | None,
        option(
            "--sidecar-suffix",
            panel=TEXTS,
            help="sidecar: the suffix of its files. \\[default: .txt; when read, either]",
            show_default=False,
        ),
    ] = None
    image_root: Annotated[
        str | None,
        option(
            "--image-root",
            metavar="DIR",
            panel=IMAGES,
            help="The folder file_name is relative to, for formats that take images along.",
            show_default=False,
        ),
    ] = None
    images: Annotated[
        Literal["link", "copy", "none"] | None,
        option(
            "--images",
            panel=IMAGES,
            help="imagefolder: how the images get into DST. \\[default: link; none where DST is "
            "the folder of the images]",
            show_default=False,
        ),
    ] = None
    metadata: Annotated[
        Literal["jsonl", "parquet"],
        option("--metadata", panel=IMAGES, help="imagefolder: the kind of its metadata file."),
    ] = "jsonl"
    id_column: Annotated[
        str | None,
        option(
            "--id-column",
            metavar="NAME",
            panel=IDS,
            help="The column that holds the ids. \\[default: coco: the last number in file_name; "
            "vqa: question_id]",
            show_default=False,
        ),
    ] = None
    id_map: Annotated[
        str | None,
        option(
            "--id-map",
            metavar="FILE",
            panel=IDS,
            help="Ids of file names: a JSON object, a CSV table with file_name and id, or COCO "
            "annotations.",
            show_default=False,
        ),
    ] = None
    annotations: Annotated[
        str | None,
        option(
            "--annotations",
            metavar="FILE",
            panel=IDS,
            help="COCO annotations or VQA questions that the results have to match one to one.",
            show_default=False,
        ),
    ] = None

    @property
    def options(self) -> ConvertOptions:
        if len(self.paths) < 2:
            raise OptionError(
                f"Only {self.paths[0]!r} was given; name what is converted and, last, what it "
                "becomes, such as captions.parquet."
            )
        from blip2cli.convert.options import ConvertOptions  # its room takes a while to import

        return ConvertOptions(
            sources=tuple(self.paths[:-1]),
            destination=self.paths[-1],
            read_as=self.read_as,
            write_as=self.write_as,
            overwrite=self.overwrite,
            text_column=self.text_column,
            image_root=self.image_root,
            images=self.images,
            metadata=self.metadata,
            id_column=self.id_column,
            id_map=self.id_map,
            annotations=self.annotations,
            sidecar_suffix=self.sidecar_suffix,
            prefix=self.prefix,
            suffix=self.suffix,
            shard_size=self.shard_size,
        )


def convert(
    flags: ConvertFlags,
    checkpoints: CheckpointFlags,
    *,
    verbose: Annotated[
        int,
        option("--verbose", "-v", count=True, panel=REPORT, help=VERBOSE_HELP, show_default=False),
    ] = 0,
    quiet: Annotated[bool, option("--quiet", "-q", panel=REPORT, help=QUIET_HELP)] = False,
) -> int:
    """Convert results into another format, or a checkpoint into another layout.

    Results: tables, data sets, evaluation files, sidecars, vectors. Checkpoints: LAVIS's .pth into
    a directory for --model and back, other precisions, other shards.
    """
    try:
        options = flags.options
        if options.read_as is None and _is_model(options.sources[0]):
            refuse(flags, "a checkpoint is", "results", shared=("paths", "overwrite"))
            asked = checkpoints.options(flags.paths, flags.overwrite)
            with _bar(quiet) as bar:
                return convert_checkpoint(asked, bar, quiet)
        refuse(checkpoints, "results are", "checkpoints")
        return _convert(options, quiet)
    except Blip2CliError as error:
        complain(error.sentence(_flag))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody but us
        return unexpected(error, verbose)


def _flag(name: str) -> str:
    named = {"read_as": "from", "write_as": "to"}
    return "--" + named.get(name, name.replace("_", "-"))


def _is_model(source: str) -> bool:
    from blip2cli.convert.detect_format import is_model

    return is_model(source)


@contextmanager
def _bar(quiet: bool) -> Iterator[_Bar | None]:
    """A progress bar where a person looks."""
    bar = _Bar() if sys.stderr.isatty() and not quiet else None
    try:
        yield bar
    finally:
        if bar is not None:
            bar.close()


def _convert(options: ConvertOptions, quiet: bool) -> int:
    from blip2cli.cli.terminal.console import duration
    from blip2cli.convert import convert as run
    from blip2cli.storage.text_encoding import printable

    with _bar(quiet) as bar:
        done = run(options, bar)
    if not quiet:
        for note in done.notes:
            print(printable(spell_options(note, _flag)), file=sys.stderr)
        rate = done.rows / max(done.seconds, 1e-9)
        count = "1 row" if done.rows == 1 else f"{done.rows} rows"
        line = f"{count} into {options.destination}; {duration(done.seconds)}, {rate:.0f} rows/s."
        print(printable(line), file=sys.stderr)
    return SUCCESS


class _Bar:
    """A progress bar in bytes, the only measure that is known beforehand for all formats."""

    def __init__(self) -> None:
        self._bar: Any = None
        self.close: Callable[[], None] = lambda: None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            tqdm.monitor_interval = 0
            self._bar = tqdm(
                total=total, unit="B", unit_scale=True, file=sys.stderr, leave=False,
                dynamic_ncols=True,
            )  # fmt: skip
            self.close = self._bar.close
        self._bar.update(done - self._bar.n)

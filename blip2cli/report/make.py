"""Makes the page of an output: ``report``."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from blip2cli import __version__
from blip2cli.convert.column_types import EMBEDDING
from blip2cli.errors import OptionError, SourceError, UserError, option, spell_options
from blip2cli.evaluate.evaluation import Evaluation
from blip2cli.evaluate.read_references import read_references
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.references import References
from blip2cli.options import EvalOptions, PageOptions
from blip2cli.pipeline.events import PageWritten
from blip2cli.report.about import OutputAbout, Summary
from blip2cli.report.compare import add_second
from blip2cli.report.find_images import ImagePlaces, search_images
from blip2cli.report.neighbours import MOST_ROWS, neighbours_of
from blip2cli.report.page import assemble
from blip2cli.report.page_file import PageWriter, writing
from blip2cli.report.plain import public_text
from blip2cli.report.rows import PageRows, read_page_rows
from blip2cli.report.scores import RowScores, evaluation_of, metrics_of, score_rows
from blip2cli.report.thumbnails import Sprites, cell_size, make_sprites
from blip2cli.storage.text_encoding import printable

ONE_FILE_ROWS = 3000  # more, and pictures are files beside the page
ONE_FILE_BYTES = 10_000_000
_MARGIN = 60_000  # bytes of what is only known when the thumbnails are
_LEAST_BYTES = 400  # of a thumbnail in one file; where texts leave less, files lie beside it
_MOST_BYTES = 4000  # of one in a file beside the page


def make_page(
    options: PageOptions,
    places: ImagePlaces,
    summary: Summary | None = None,
    progress: Callable[[int, int], None] | None = None,
    after_run: bool = False,
    judged: tuple[References, Evaluation] | None = None,
    one_file_bytes: int = ONE_FILE_BYTES,
) -> PageWritten:
    """Write the page ``options.out``, and its pictures.

    ``places`` says where they are; ``progress`` gets the number of pictures so far, and of all.
    ``after_run``: what references do not say is a note, as the run itself is good; ``judged`` is
    what it was compared with, and what came of that, if it was. Pictures in the page leave it at
    ``one_file_bytes``. Raises UserError, RunError.
    """
    start = time.monotonic()
    table = Table.of("rows", options.rows)
    rows = read_page_rows(table, options.text_column, options.limit)
    about = OutputAbout.of(table, rows)
    page = _Page(options, table, rows, one_file_bytes)
    page.outputs.append(about.as_dict(rows, summary))
    name = "report" if after_run else "out"
    with writing(options.out, about.identity, options.overwrite, name) as writer:
        try:
            page.add_references_and_second(judged)
        except UserError as error:
            if not after_run:
                raise
            page.notes.append(f"There are no metrics: {public_text(error.problem)}.")
        page.add_neighbours()
        images = list(dict.fromkeys(rows.columns["file_name"]))
        if not options.no_images and not places:
            places = search_images(about.sources, table.paths[0])
            if not places:
                page.notes.append(
                    f"The pictures are missing: {option('image_root')} or {option('source')} says "
                    "where they are."
                )
        if places and not options.no_images:
            page.add_pictures(places, images, writer, progress)
        writer.finish(page.html())
    return PageWritten(
        options.out, len(rows), page.pictures, time.monotonic() - start, tuple(page.notes)
    )


class _Page:
    """What a page is made of, bit by bit."""

    def __init__(
        self, options: PageOptions, table: Table, rows: PageRows, one_file_bytes: int
    ) -> None:
        self._one_file_bytes = one_file_bytes
        self.outputs: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._options, self._table, self._rows = options, table, rows
        self._metrics: list[dict[str, Any]] = []
        self._scores: RowScores | None = None
        self._sprites: Sprites | None = None
        if rows.cut:
            self.notes.append(
                f"Only the first {len(set(rows.columns['file_name']))} images are shown."
            )

    @property
    def pictures(self) -> int:
        """The pictures that were found."""
        return len(self._sprites.widths) if self._sprites is not None else 0

    def add_references_and_second(self, judged: tuple[References, Evaluation] | None) -> None:
        """Scores by references, and the rows of another output. Raises UserError, RunError."""
        options, rows = self._options, self._rows
        second = None
        if options.compare:
            table = Table.of("compare", options.compare)
            second = read_page_rows(table, options.text_column, None)
        if options.against is not None:
            if EMBEDDING in self._table.columns:
                raise OptionError(
                    "against",
                    f"{option('against')} is about captions and answers, and these are vectors",
                    "leave it out; eval computes their recall",
                )
            asked = EvalOptions(
                compare=options.compare,
                text_column=options.text_column,
                id_column=options.id_column,
                id_map=options.id_map,
            )
            if judged is None:
                references = read_references(options.against, column=options.reference_column)
                judged = references, evaluation_of(self._table, references, asked)
            references, evaluation = judged
            self._metrics = metrics_of(evaluation)
            self.notes += map(public_text, evaluation.notes)
            self._scores = score_rows(self._table, references, asked, rows.columns["confidence"])
            rows.columns["score"] = self._scores.scores
            rows.columns["references"] = self._scores.references
            if second is not None:
                found = score_rows(table, references, asked, second.columns["confidence"])
                second.columns["score"] = found.scores
        if second is not None:
            self.outputs.append(OutputAbout.of(table, second).as_dict(second, None))
            self.notes += add_second(rows, second)

    def add_neighbours(self) -> None:
        """The nearest neighbours of embeddings. Raises SourceError."""
        if EMBEDDING not in self._table.columns:
            return
        if self._rows.rows > MOST_ROWS:
            self.notes.append(
                f"Neighbours are found up to {MOST_ROWS} rows; embedding-atlas draws maps of more."
            )
            return
        found = neighbours_of(self._table, self._rows.rows)
        missing = len(self._rows) - self._rows.rows
        self._rows.columns["neighbours"] = [*found, *[None] * missing]

    def add_pictures(
        self,
        places: ImagePlaces,
        images: list[str],
        writer: PageWriter,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Thumbnails of ``images``. Raises SourceError for a mistaken place, RunError, OSError."""
        cell = cell_size(len(images))
        inside = 0
        if len(self._rows) <= ONE_FILE_ROWS:
            left = self._one_file_bytes - _MARGIN - len(self.html().encode())
            inside = left * 3 // 4 // max(1, len(images))
        in_page = inside >= _LEAST_BYTES

        def counted(done: int) -> None:
            if progress is not None:
                progress(done, len(images))

        sprites = make_sprites(
            places.refs(images),
            cell,
            inside if in_page else _MOST_BYTES,
            _data_uri if in_page else writer.put_sheet,
            counted,
        )
        self._sprites = sprites
        kinds = Counter(sprites.failed.values())
        absent = len(images) - self.pictures - kinds.total() + kinds["missing"]
        if images and absent == len(images) and places.typed:
            self._nothing_found(images)
        if absent:
            self.notes.append(f"{absent} of {len(images)} pictures were not found.")
        columns = self._rows.columns
        known = {  # images that failed in the run, which their rows say
            name
            for name, kind in zip(columns["file_name"], columns["error_type"], strict=True)
            if kind
        }
        kinds = Counter(kind for name, kind in sprites.failed.items() if name not in known)
        del kinds["missing"]
        if kinds:
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            self.notes.append(f"Pictures that cannot be read: {listed}.")

    def html(self) -> str:
        """The page."""
        rows = self._rows
        columns = dict(rows.columns)
        images: dict[str, list[int]] = {"width": [], "height": []}
        if self._sprites is not None:
            numbers = self._sprites.numbers
            columns["image"] = [numbers.get(name, -1) for name in columns["file_name"]]
            images = {"width": self._sprites.widths, "height": self._sprites.heights}
        run = {
            "format": 1,
            "version": __version__,
            "task": rows.task,
            "outputs": self.outputs,
            "confidence": " or ".join(rows.confidences) or None,
            "metrics": self._metrics,
            "score": self._scores.name if self._scores is not None else None,
            "reliability": self._scores.bins if self._scores is not None else [],
            "ece": self._scores.ece if self._scores is not None else None,
            "sprites": self._sprites.as_dict() if self._sprites is not None else None,
            "notes": [_as_words(note) for note in self.notes],
            "licences": [],
        }
        data = {
            "rows": {name: values for name, values in columns.items() if _says_something(values)}
            | {"file_name": columns["file_name"]},
            "images": images,
            "extra": [
                {"name": name, "values": values}
                for name, values in rows.extra.items()
                if _says_something(values)
            ],
        }
        return assemble(printable(self.outputs[0]["name"]), run, data)

    def _nothing_found(self, images: list[str]) -> None:
        """Raise SourceError: the place was mistyped."""
        field = "source" if self._options.source else "image_root"
        raise SourceError(
            field,
            f"None of the {len(images)} pictures is there, such as {images[0]!r}",
            f"give what the run was given with {option(field)}, or leave pictures out with "
            f"{option('no_images')}",
        )


def _says_something(values: list[Any]) -> bool:
    return any(value is not None and value != "" for value in values)


def _as_words(note: str) -> str:
    """A note as the page shows it, which knows no flags."""
    return spell_options(note, lambda name: name.replace("_", " "))


def _data_uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"

"""Retrieval: how often the right text is among the k nearest of an image, and the other way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from blip2cli.errors import OptionError, SourceError, option
from blip2cli.evaluate.bootstrap import figures_with_intervals
from blip2cli.evaluate.evaluation import Evaluation, Figure
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.match_rows import image_key
from blip2cli.evaluate.read_references import clean_name, read_references
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.references import References
from blip2cli.evaluate.statistics import Statistics, ratio
from blip2cli.options import EvalOptions
from blip2cli.storage.text_encoding import from_utf8

RANKS = (1, 5, 10)
# Options of captions and answers.
_NOT_ABOUT_VECTORS = ("compare", "by", "text_column", "id_column", "id_map", "meteor_jar")
_PAIRS = 1 << 24  # similarities computed at once, 64 MB


def evaluate_vectors(rows: Table, options: EvalOptions) -> Evaluation:
    """Recall of the images and texts of ``rows``, whose pairs ``options.against`` tells.

    Raises UserError.
    """
    if options.against is None:
        raise OptionError(
            "against",
            "Nothing says which text belongs to which image",
            f"give a table of file_name and texts, or COCO captions, with {option('against')}",
        )
    if set(options.metric) - {"recall"}:
        raise OptionError(
            "metric", f"Of vectors {option('metric')} recall is computed", "leave it out"
        )
    for name in _NOT_ABOUT_VECTORS:
        if getattr(options, name):
            raise OptionError(name, f"{option(name)} is not about vectors", "leave it out")
    names, images, texts, sentences = _read(rows)
    references = read_references(options.against, column=options.reference_column)
    pairs, notes = _pairs(names, sentences, references)
    of_images, of_texts = np.unique(pairs[:, 0]), np.unique(pairs[:, 1])
    figures: list[Figure] = []
    for name, queries, others, one_way, chosen in (
        ("image_to_text", images, texts, pairs, of_images),
        ("text_to_image", texts, images, pairs[:, ::-1], of_texts),
    ):
        ranks = best_ranks(queries, others, one_way, chosen)
        hits = np.stack([*(ranks < k for k in RANKS), np.ones(len(ranks), bool)], axis=1)
        recall = Statistics(
            tuple(f"{name}_recall@{k}" for k in RANKS),
            hits.astype(float),
            lambda sums: ratio(
                sums[..., :-1], np.broadcast_to(sums[..., -1:], sums[..., :-1].shape)
            ),
        )
        clusters = chosen if name == "image_to_text" else _image_of(pairs, chosen)
        figures += [Figure(*each) for each in figures_with_intervals([recall], clusters)]
    counts = {"images": len(names), "texts": len(sentences), "pairs": len(pairs)}
    return Evaluation(
        "vectors", len(of_images) + len(of_texts), len(of_images), tuple(figures), (), counts,
        tuple(notes),
    )  # fmt: skip


def best_ranks(queries: Numbers, others: Numbers, pairs: Numbers, chosen: Numbers) -> Numbers:
    """How many wrong ones are as near as the nearest right one, for each of the ``chosen``.

    ``pairs`` are numbers of a query and of a right one, ``[pairs, 2]``.
    """
    order = np.argsort(pairs[:, 0], kind="stable")
    sorted_queries, rights = pairs[order, 0], pairs[order, 1]
    ranks = np.zeros(len(chosen), np.int64)
    step = max(1, _PAIRS // max(1, len(others)))
    for start in range(0, len(chosen), step):
        some = chosen[start : start + step]
        near = queries[some] @ others.T
        for row, query in enumerate(some):
            first, end = np.searchsorted(sorted_queries, (query, query + 1))
            right = np.unique(rights[first:end])
            best = near[row, right].max()
            ranks[start + row] = (near[row] >= best).sum() - (near[row, right] >= best).sum()
    return ranks


def _image_of(pairs: Numbers, texts: Numbers) -> Numbers:
    """The first image of each text."""
    order = np.lexsort((pairs[:, 0], pairs[:, 1]))
    first = np.searchsorted(pairs[order, 1], texts)
    found: Numbers = pairs[order, 0][first]
    return found


def _read(table: Table) -> tuple[list[str], Numbers, Numbers, list[str]]:
    """Names and vectors of images, vectors and sentences of texts. Raises SourceError."""
    names: list[str] = []
    sentences: list[str] = []
    vectors: dict[str, list[Numbers]] = {"images": [], "texts": []}
    for batch in table.arrow_batches():
        columns = batch.schema.names
        if "embedding" not in columns:
            raise SourceError(
                "rows", f"Some rows of {str(table)!r} have no vectors", "leave them out"
            )
        batch = batch.filter(batch.column("embedding").is_valid())
        if "file_name" in columns:
            found = batch.column("file_name").to_pylist()
            names += [clean_name(from_utf8(str(name))) for name in found]
        else:
            found = batch.column("text").to_pylist()
            sentences += [from_utf8(str(text)).strip() for text in found]
        vectors["images" if "file_name" in columns else "texts"].append(unit_vectors(batch))
    if not names or not sentences:
        raise SourceError(
            "rows",
            f"There are vectors of {len(names)} images and of {len(sentences)} texts",
            "give an output of images and one of texts",
        )
    images, texts = np.concatenate(vectors["images"]), np.concatenate(vectors["texts"])
    if images.shape[1] != texts.shape[1]:
        raise SourceError(
            "rows",
            f"Vectors of images have {images.shape[1]} numbers, and those of texts "
            f"{texts.shape[1]}",
            f"embed both with {option('kind')} projection",
        )
    return names, images, texts, sentences


def unit_vectors(batch: pa.RecordBatch) -> Numbers:
    """The vectors of the column ``embedding`` at length 1, float32 ``[rows, size]``; no nulls."""
    flat = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    vectors = flat.astype(np.float32).reshape(batch.num_rows, -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Numbers = vectors / np.maximum(lengths, 1e-12)
    return unit


def _pairs(
    names: list[str], sentences: list[str], references: References
) -> tuple[Numbers, list[str]]:
    """Numbers of image and text that belong together, ``[pairs, 2]``, and notes."""
    numbers = references.index.find([image_key(name, references, "") for name in names])
    by_text: dict[str, list[int]] = {}
    for number, sentence in enumerate(sentences):
        by_text.setdefault(sentence, []).append(number)
    found = list(_found(numbers, by_text, references))
    if not found:
        raise SourceError(
            "rows",
            f"No image has one of the texts in {references.path!r}",
            "give the table the texts were embedded from, with their file_name",
        )
    pairs = np.array(sorted(set(found)))
    notes = []
    for what, count, used in (
        ("images", len(names), len(np.unique(pairs[:, 0]))),
        ("texts", len(sentences), len(np.unique(pairs[:, 1]))),
    ):
        if used < count:
            notes.append(
                f"{count - used} of {count} {what} have no counterpart; they only distract."
            )
    return pairs, notes


def _found(
    numbers: Numbers, by_text: dict[str, list[int]], references: References
) -> Iterator[tuple[int, int]]:
    for image, number in enumerate(numbers.tolist()):
        for text in references.texts(number) if number >= 0 else ():
            for sentence in by_text.get(text.strip(), ()):
                yield image, sentence

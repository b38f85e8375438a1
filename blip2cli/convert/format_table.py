"""The table of formats that results are converted from and into.

A new format is an entry here and a module in ``formats`` with ``open_writer(options, reader)`` and,
where it can be read, ``open_reader(path, options, schemas)`` (see ``base`` for the protocols).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Format:
    """One format of results."""

    name: str  # as in the options ``read_as`` and ``write_as``
    help: str
    module: str  # in ``formats``; imported when it is used
    suffixes: tuple[str, ...] = ()
    readable: bool = True
    folder: bool = False  # the output is a folder

    def load(self, name: str) -> Any:
        """``open_reader`` or ``open_writer`` of the module."""
        module = importlib.import_module(f"blip2cli.convert.formats.{self.module}")
        return getattr(module, name)


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("jsonl", "JSON Lines, plain or gzipped", "jsonl", (".jsonl", ".jsonl.gz")),
        Format("parquet", "Parquet", "parquet", (".parquet",)),
        Format("parts", "a folder of Parquet files, as of runs", "parts", folder=True),
        Format("csv", "CSV: UTF-8, with a header", "delimited", (".csv",)),
        Format("tsv", "CSV with tabs", "delimited", (".tsv",)),
        Format(
            "imagefolder",
            "Hugging Face imagefolder: images and a metadata file",
            "imagefolder",
            folder=True,
        ),
        Format("sidecar", "a text file beside each image", "sidecar", folder=True),
        Format("coco", "results file of the COCO caption evaluation", "coco", readable=False),
        Format("vqa", "results file of the VQA evaluation", "coco", readable=False),
        Format("llava", "conversations that LLaVA is trained on", "llava", readable=False),
        Format("label-studio", "tasks for Label Studio, and its export back", "label_studio"),
        Format(
            "webdataset",
            "tar shards of images, texts and rows",
            "webdataset",
            (".tar",),
            readable=False,
        ),
        Format("image-parquet", "Parquet that holds the images", "image_parquet", readable=False),
        Format(
            "dataset",
            "a data set to publish: Parquet shards, with images if you like, and a card",
            "dataset",
            readable=False,
            folder=True,
        ),
        Format("npy", "embeddings as a NumPy array, with a file of keys", "npy", (".npy",)),
        Format("clip-retrieval", "embeddings for clip-retrieval", "clip_retrieval", folder=True),
    )
}
READABLE = tuple(one.name for one in FORMATS.values() if one.readable)


def format_by_suffix(path: str) -> Format | None:
    """The format with the longest suffix that the name of ``path`` ends in."""
    name = path.rpartition("/")[2].lower()
    fitting = [
        (len(suffix), one.name)
        for one in FORMATS.values()
        for suffix in one.suffixes
        if name.endswith(suffix) and name != suffix
    ]
    return FORMATS[max(fitting)[1]] if fitting else None

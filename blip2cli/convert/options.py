"""The frozen options of a conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ImagesMode = Literal["link", "copy", "none"]
MetadataKind = Literal["jsonl", "parquet"]
SidecarSuffix = Literal[".txt", ".caption"]


@dataclass(frozen=True)
class ConvertOptions:
    """What is converted, into what, and how."""

    sources: tuple[str, ...]  # as typed: files, folders, globs; their rows follow one another
    destination: str
    read_as: str | None = None  # a name of FORMATS; None reads it from the path
    write_as: str | None = None
    overwrite: bool = False
    text_column: str | None = None  # None: caption, or answer in the rows of ask
    image_root: str | None = None  # the folder that file_name is relative to
    images: ImagesMode | None = None  # imagefolder; None: link, or none beside the images
    metadata: MetadataKind = "jsonl"  # imagefolder
    id_column: str | None = None  # coco and vqa: the column that holds ids
    id_map: str | None = None  # coco and vqa: a file that gives ids to names
    annotations: str | None = None  # coco and vqa: what has to be complete
    sidecar_suffix: SidecarSuffix | None = None  # None: .txt; when read, either
    prefix: str = ""  # sidecar: text before every caption
    suffix: str = ""  # sidecar: text after every caption
    shard_size: int | None = None  # webdataset: samples a tar; clip-retrieval: vectors a file

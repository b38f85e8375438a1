"""The Python API: ``from blip2cli import Blip2; Blip2.load("tiny").caption(["cat.jpg"])``.

The same tasks, model and options as the command line's, on images in memory or files: paths, Pillow
images or arrays (uint8 ``[H, W, C]``) in, one or any iterable of them; plain dictionaries and
arrays out. A pickled model is loaded again where it is unpickled. Decoding options are the fields
of ``blip2cli.options.DecodeOptions``, by name.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from blip2cli.errors import ImageError, OptionError, RunError, option
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.options import (
    DEFAULT_MODEL,
    AskOptions,
    CaptionOptions,
    DecodeOptions,
    DeviceMap,
    Dtype,
    EmbeddingDtype,
    EmbedOptions,
    Kind,
    ModelOptions,
    Norm,
    Pool,
    Quantize,
    RankBy,
    RankOptions,
)
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.calibration import of_model
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.choices import from_list
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.questions import from_texts
from blip2cli.tasks.texts import from_lines

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from blip2cli.images.batch_stream import LoadedBatch
    from blip2cli.model.wrapper import Blip2 as Model

    AnyPath = str | os.PathLike[str]
    Picture = AnyPath | Image.Image | np.ndarray


class Blip2:
    """A loaded model. Build it with ``Blip2.load``."""

    def __init__(self, model: Model, batch_size: int | None = None) -> None:
        if batch_size is None:
            from blip2cli.model.placement.batch_size import auto_batch_size

            batch_size = auto_batch_size(model)
        if batch_size < 1:
            raise OptionError(
                "batch_size", f"{option('batch_size')} takes a positive number, not {batch_size}"
            )
        self.model = model
        self.batch_size = batch_size
        self._options: ModelOptions | None = None  # it can be loaded with
        self._ranker: RankerSpec | None = None  # likewise
        self._process = os.getpid()

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: Dtype = "auto",
        quantize: Quantize | None = None,
        compile: bool = False,  # noqa: A002 - the option's name
        device_map: DeviceMap | None = None,
        max_memory: str | None = None,
        offload: str | None = None,
        adapter: str | Sequence[str] = (),
        batch_size: int | None = None,
        rank_with: str | None = None,
    ) -> Blip2:
        """Load ``model``: a hub id, a local directory, or an embedded name such as ``tiny``.

        ``batch_size`` images go through it together; None: by the model and the memory.
        ``compile`` compiles the image side first. ``device_map``, ``max_memory`` and ``offload``
        place layers of a model that is larger than a device. ``adapter`` names adapters of PEFT to
        merge into it, ``@0.5`` behind one scales it. ``rank_with`` is a retrieval model
        that picks the best caption. Raises ModelError when one cannot be found or loaded,
        OptionError when the options do not fit it; warns of files that are not used.
        """
        places = (device_map, max_memory, offload)
        adapters = (adapter,) if isinstance(adapter, str) else tuple(adapter)
        options = ModelOptions(model, revision, device, dtype, quantize, compile, *places, adapters)
        loaded = cls._loaded(options, batch_size, rank_with)
        for remark in loaded.model.model.remarks:
            warnings.warn(f"{model}: {remark}", stacklevel=2)
        return loaded

    @classmethod
    def _loaded(
        cls, options: ModelOptions, batch_size: int | None, rank_with: str | None = None
    ) -> Blip2:
        from blip2cli.model.wrapper import Blip2 as Model

        ranker = None
        if rank_with is None:
            model = Model.load(options)
        else:
            from blip2cli.model.load_ranked import load_ranked

            ranker = RankerSpec(rank_with).local(options)
            model = load_ranked(options, None, ranker)
        loaded = cls(model, batch_size)
        loaded._options, loaded._ranker = options, ranker
        return loaded

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the model itself."""
        if self._options is None:
            raise TypeError("only a model that was loaded with Blip2.load can be pickled")
        rank_with = None if self._ranker is None else self._ranker.name
        return type(self)._loaded, (self._options, self.batch_size, rank_with)

    def caption(
        self,
        images: Picture | Iterable[Picture],
        prompt: str | None = None,
        *,
        rank_by: RankBy = "match",
        min_match: float | None = None,
        calibration: AnyPath | None = None,
        min_precision: float | None = None,
        min_confidence: float | None = None,
        **decoding: Any,
    ) -> list[dict[str, Any]]:
        """Caption each image: ``file_name``, ``width``, ``height``, ``caption``, ``logprob``,
        ``flag``.

        With ``num_captions`` above 1 also ``candidates``. A model that was loaded with
        ``rank_with`` picks the best of them, and rows have ``match``; ``rank_by`` and
        ``min_match`` as for ``blip2cli caption``, ``calibration`` and what follows as for ``ask``.
        Raises ImageError, naming the image, when one cannot be used.
        """
        ranker = self.model.ranker
        rank = RankOptions(None if ranker is None else ranker.name, rank_by, min_match)
        sure = of_model(self._options, calibration, min_precision, min_confidence, self._ranker)
        task = CaptionTask(CaptionOptions(prompt), _decoding(decoding), rank, sure)
        return self._rows(task, images)

    def ask(
        self,
        images: Picture | Iterable[Picture],
        questions: str | Iterable[str] = (),
        template: str = "auto",
        *,
        choices: Sequence[str] = (),
        norm: Norm | None = None,
        match: bool = False,
        choice_scores: bool = False,
        calibration: AnyPath | None = None,
        min_precision: float | None = None,
        min_confidence: float | None = None,
        **decoding: Any,
    ) -> list[dict[str, Any]]:
        """Put every question to every image; rows by image, then question.

        Each row holds ``question``, ``question_id``, ``answer``, ``logprob`` and ``flag`` beside
        the image's name and size. With ``choices`` the answer is one of them, and
        ``probabilities`` a list of ``{choice, probability}``; ``choice_mass`` is the probability
        that the model writes any of them at all (None: a retrieval model). ``norm``, ``match`` and
        ``choice_scores`` as for ``blip2cli ask``. By a ``calibration``, the path of a file, rows
        have a ``confidence``; with ``min_precision`` or ``min_confidence`` unsure answers are None,
        flagged ``abstained``, and ``guess`` is what they would be. Raises ImageError, naming the
        image, when one cannot be used.
        """
        asked = from_texts(_listed(questions))
        options = AskOptions(
            template=template, choice_norm=norm, choice_scores=choice_scores, match=match
        )
        answers = from_list(choices) if choices else ()
        confidence = of_model(self._options, calibration, min_precision, min_confidence)
        task = AskTask(asked, options, _decoding(decoding), answers, calibration=confidence)
        return self._rows(task, images)

    def embed(
        self,
        images: Picture | Iterable[Picture],
        kind: Kind = "image",
        pool: Pool | None = None,
        *,
        text: str | Iterable[str] = (),
        normalize: bool = False,
        dtype: EmbeddingDtype = "float32",
    ) -> np.ndarray:
        """Embed each image; returns ``dtype`` [N, D], rows in the images' order.

        ``kind``, ``pool`` and the others as for ``blip2cli embed``. With the kind ``multimodal``
        each image is looked at with every ``text``: [N * texts, D], by image, then text. Raises
        ImageError, naming the image, when one cannot be used, and OptionError when the model has
        no such vectors.
        """
        options = EmbedOptions(kind, pool, normalize=normalize, embedding_dtype=dtype)
        task = EmbedTask(options, from_lines(_listed(text))).fit(self.model)
        return _stacked(self._rows(task, images), task.size, dtype)

    def embed_texts(
        self,
        texts: str | Iterable[str],
        kind: Kind | None = None,
        pool: Pool | None = None,
        *,
        normalize: bool = False,
        dtype: EmbeddingDtype = "float32",
    ) -> np.ndarray:
        """Embed each text without an image; returns ``dtype`` [N, D], rows in the texts' order.

        ``kind`` is by default ``projection`` in a retrieval model, where such vectors are
        comparable with those of images, and ``language`` in all others. Raises OptionError for an
        empty text, one that is too long, or when the model has no such vectors.
        """
        self._check_process()
        lines = _listed(texts)
        if not lines:
            return _stacked([], 0, dtype)
        lines = list(from_lines(lines).lines)
        options = EmbedOptions(kind, pool, normalize=normalize, embedding_dtype=dtype)
        task = EmbedTextsTask(options).fit(self.model)
        return _stacked(task.rows(self.model, lines), task.size, dtype)

    def _rows(self, task: Task, images: Picture | Iterable[Picture]) -> list[dict[str, Any]]:
        self._check_process()
        task = task.fit(self.model)
        return [
            dict(row) for batch in self._batches(images) for row in task.rows(self.model, batch)
        ]

    def _batches(self, images: Picture | Iterable[Picture]) -> Iterator[LoadedBatch]:
        from blip2cli.images.batch_stream import LoadedBatch
        from blip2cli.images.load_image import ImageLoader
        from blip2cli.images.pillow_ref import image_ref, is_one_image

        pictures = [images] if is_one_image(images) else cast("Iterable[Picture]", images)
        image_loader = ImageLoader(self.model.spec)
        refs = (image_ref(picture, number) for number, picture in enumerate(pictures))
        while some := list(islice(refs, self.batch_size)):
            batch = LoadedBatch.of(image_loader.load_batch(some))
            for item in batch.items:
                if (error := item.error) is not None:
                    raise ImageError(error.error_type, f"{item.file_name}: {error}") from error
            yield batch

    def _check_process(self) -> None:
        """Raise RunError in a process that was forked: it has none of the threads the model runs
        in, and would wait for them for ever."""
        if os.getpid() != self._process:
            raise RunError(
                None,
                "This model was loaded in the process that this one was forked from",
                "load it in each process, or start processes with multiprocessing's spawn",
            )


def _listed(texts: str | Iterable[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _stacked(
    rows: Sequence[Mapping[str, Any]], size: int | None, dtype: EmbeddingDtype
) -> np.ndarray:
    import numpy as np

    if not rows:
        return np.zeros((0, size or 0), dtype=dtype)
    return np.stack([row["embedding"] for row in rows])


def _decoding(options: dict[str, Any]) -> DecodeOptions:
    known = DecodeOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise OptionError(
                name, f"{name} is no decoding option", f"there are {', '.join(known)}"
            )
    return DecodeOptions(**options)

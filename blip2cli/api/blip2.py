"""A loaded model with the tasks of the command line, for images in files or in memory.

Images are paths, Pillow images, arrays (uint8 ``[H, W, C]``) or tensors (uint8 ``[C, H, W]``), one
or any iterable of them: lists, columns of ``datasets``, generators. Rows are dictionaries with the
keys of the command's. Any thread may use a model: one batch is computed at a time. A pickled model
is loaded again where it is unpickled. Decoding options are the fields of
``blip2cli.options.DecodeOptions``, by name.

>>> from blip2cli import Blip2
>>> model = Blip2.load("tiny")
>>> model.caption("sample_images/cats.png")[0]["caption"]
'two cats and a pizza on a blue background'
>>> model.ask("sample_images/cats.png", "how many cats are there?")[0]["answer"]
'two'
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blip2cli.api.arguments import Errors, decode_options, image_column_of, listed
from blip2cli.api.batches import count_of, references
from blip2cli.api.loaded_model import LoadedModel, before_loading
from blip2cli.api.rows import AnswerRow, CaptionRow, Rows, stacked
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.options import (
    DEFAULT_MODEL,
    AskOptions,
    CaptionOptions,
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
from blip2cli.tasks.calibration import of_model
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.choices import from_list
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.questions import from_texts
from blip2cli.tasks.texts import from_lines

if TYPE_CHECKING:
    import numpy as np

    from blip2cli.api.batches import AnyPath, Picture


class Blip2(LoadedModel):
    """A loaded model. Build it with ``Blip2.load``."""

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

        before_loading()
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
        errors: Errors = "raise",
        progress: bool = False,
        **decoding: Any,
    ) -> Rows[CaptionRow]:
        """Caption each image: ``file_name``, ``width``, ``height``, ``caption``, ``logprob``,
        ``flag``.

        With ``num_captions`` above 1 also ``candidates``. A model that was loaded with
        ``rank_with`` picks the best of them, and rows have ``match``; ``rank_by`` and
        ``min_match`` as for ``blip2cli caption``, ``calibration`` and what follows as for ``ask``.
        Raises ImageError, naming the image, when one cannot be used; with ``errors="inline"`` that
        is its row's ``error``, as in the command's outputs. ``progress`` shows a bar.
        """
        ranker = self.model.ranker
        rank = RankOptions(None if ranker is None else ranker.name, rank_by, min_match)
        sure = of_model(self._options, calibration, min_precision, min_confidence, self._ranker)
        task = CaptionTask(CaptionOptions(prompt), decode_options(decoding), rank, sure)
        return self._rows(CaptionRow, task, images, errors, progress)

    def caption_batch(
        self,
        batch: Mapping[str, Any],
        indices: Sequence[int] | None = None,
        *,
        image_column: str = "image",
        **options: Any,
    ) -> dict[str, list[Any]]:
        """The columns of captions, for ``dataset.map(model.caption_batch, batched=True)``.

        ``batch`` holds lists of values by column; ``options`` are those of ``caption``, which
        ``map`` takes as ``fn_kwargs``. Texts that are drawn depend on the names of images: add
        ``with_indices=True`` where these come from no files.
        """
        images = image_column_of(batch, image_column)
        rows = self.caption(references(images, indices), **options)
        return {column.name: [row[column.name] for row in rows] for column in rows.columns}

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
        errors: Errors = "raise",
        progress: bool = False,
        **decoding: Any,
    ) -> Rows[AnswerRow]:
        """Put every question to every image; rows by image, then question.

        Each row holds ``question``, ``question_id``, ``answer``, ``logprob`` and ``flag`` beside
        the image's name and size. With ``choices`` the answer is one of them, and
        ``probabilities`` a list of ``{choice, probability}``; ``choice_mass`` is the probability
        that the model writes any of them at all (None: a retrieval model). ``norm``, ``match`` and
        ``choice_scores`` as for ``blip2cli ask``. By a ``calibration``, the path of a file, rows
        have a ``confidence``; with ``min_precision`` or ``min_confidence`` unsure answers are None,
        flagged ``abstained``, and ``guess`` is what they would be. ``errors`` and ``progress`` as
        for ``caption``.
        """
        asked = from_texts(listed(questions))
        options = AskOptions(
            template=template, choice_norm=norm, choice_scores=choice_scores, match=match
        )
        answers = from_list(choices) if choices else ()
        confidence = of_model(self._options, calibration, min_precision, min_confidence)
        task = AskTask(asked, options, decode_options(decoding), answers, calibration=confidence)
        return self._rows(AnswerRow, task, images, errors, progress)

    def embed(
        self,
        images: Picture | Iterable[Picture],
        kind: Kind = "image",
        pool: Pool | None = None,
        *,
        text: str | Iterable[str] = (),
        normalize: bool = False,
        dtype: EmbeddingDtype = "float32",
        progress: bool = False,
    ) -> np.ndarray:
        """Embed each image; returns ``dtype`` [N, D], rows in the images' order.

        ``kind``, ``pool`` and the others as for ``blip2cli embed``. With the kind ``multimodal``
        each image is looked at with every ``text``: [N * texts, D], by image, then text. Raises
        ImageError, naming the image, when one cannot be used, and OptionError when the model has
        no such vectors.
        """
        self._check_process()
        options = EmbedOptions(kind, pool, normalize=normalize, embedding_dtype=dtype)
        task = EmbedTask(options, from_lines(listed(text))).fit(self.model)
        batches = self._computed(task, references(images), count_of(images), progress)
        return stacked([row for _, rows in batches for row in rows], task.size, dtype)

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
        lines = listed(texts)
        if not lines:
            return stacked([], 0, dtype)
        lines = list(from_lines(lines).lines)
        options = EmbedOptions(kind, pool, normalize=normalize, embedding_dtype=dtype)
        task = EmbedTextsTask(options).fit(self.model)
        with self._computing:
            rows = task.rows(self.model, lines)
        return stacked(rows, task.size, dtype)

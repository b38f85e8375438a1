"""Which retrieval model ranks what another model writes: its name, and its checkpoint once found.

Reading it needs no torch: a mistake is answered before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.checkpoint.identity import model_identity
from blip2cli.model.checkpoint.resolve import local_checkpoint, resolve
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.options import ModelOptions
from blip2cli.sinks import both_weights


@dataclass(frozen=True)
class RankerSpec:
    """A retrieval model that is loaded beside the model of a run; it can be pickled."""

    name: str
    checkpoint: Checkpoint | None = None  # None: not found yet

    def local(self, options: ModelOptions) -> Self:
        """With its checkpoint, where that is a directory or an embedded model.

        ``options`` are those of the model beside it. Raises OptionError where the two cannot be
        used together, or the model is no retrieval model.
        """
        if options.places_layers:
            raise OptionError(
                "rank_with",
                f"{option('rank_with')} needs models that stay where they are, and the layers of "
                f"{options.model} are to be placed one by one",
                f"rank in a run of its own, by {option('choices_column')}",
            )
        return self._with(self.checkpoint or local_checkpoint(ModelOptions(self.name)))

    def found(self) -> Self:
        """With its checkpoint, fetched if need be. Raises ModelError, OptionError."""
        try:
            return self._with(self.checkpoint or resolve(self.name))
        except ModelError as error:
            raise ModelError("rank_with", *map(_spelled, (error.problem, error.remedy))) from error

    def identity(self) -> str | None:
        """What tells its weights from others; None where nothing is known. Raises OSError."""
        return model_identity(ModelOptions(self.name), self.checkpoint)

    def _with(self, checkpoint: Checkpoint | None) -> Self:
        if checkpoint is not None and checkpoint.family.writes:
            raise OptionError(
                "rank_with",
                f"{self.name} is a model that writes, and {option('rank_with')} takes a retrieval "
                "model, which compares",
                "name one such as Salesforce/blip2-itm-vit-g or tiny-itm",
            )
        return replace(self, checkpoint=checkpoint)


def identity_of_both(
    options: ModelOptions, checkpoint: Checkpoint | None, ranker: RankerSpec | None
) -> str | None:
    """The identity of the chosen model, and of the one beside it if there is one.

    None where that of one is not known. Raises OSError.
    """
    own = model_identity(options, checkpoint)
    return own if own is None or ranker is None else both_weights(own, ranker.identity())


def _spelled(text: str) -> str:
    """A text about ``model`` for the option that names the ranker."""
    text = text.replace(f"{option('model')} tiny,", f"{option('rank_with')} tiny-itm,")
    return text.replace(option("model"), option("rank_with"))

"""The norms of choices: by which score the choices of a question are compared.

Each is a function of the log-probabilities of the question's choices, as whole texts with the end
of text token, in nats; of their numbers of tokens; and of their log-probabilities under a blank
image. No norm is the best for all models and questions: labels tell which one is.

``sum``
    The log-probability of the whole text. Its softmax is the model's own distribution over the
    choices; long and rare texts are less likely by their nature.
``mean``
    The log-probability of a token. It often over-corrects, towards long choices
    (lm-evaluation-harness calls the same by bytes ``acc_norm``).
``pmi``
    The sum minus that under a blank image: the pointwise mutual information of image and choice,
    given the question. What the model says without looking does not count (PMI-DC, arXiv
    2104.08315; ``acc_mutual_info`` in lm-evaluation-harness).
``prior``
    The posterior under a prior of lengths in place of the model's own: the sum minus what a text of
    that many tokens has on average, where a token has the mean over all the question's choices.
    Choices of one length keep the probabilities of ``sum``. An explicit prior of lengths removes
    what grows linearly with the length, without a pass of its own (Oostermeijer, "Accuracy and
    Normalized Accuracy under Length Bias", 2026); as a reward for each token it is known from
    machine translation (arXiv 1808.10006).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from blip2cli.options import Norm

Logprobs = Sequence[float]


def normalized_scores(
    norm: Norm, logprobs: Logprobs, tokens: Sequence[int], blank_logprobs: Logprobs | None = None
) -> list[float]:
    """The scores of one question's choices, in nats; the highest is the answer.

    ``tokens`` counts the end of text token. Raises ``ValueError`` where ``pmi`` lacks the
    log-probabilities under a blank image.
    """
    return _NORMS[norm](logprobs, tokens, blank_logprobs)


def _sum(logprobs: Logprobs, tokens: Sequence[int], blank: Logprobs | None) -> list[float]:
    return list(logprobs)


def _mean(logprobs: Logprobs, tokens: Sequence[int], blank: Logprobs | None) -> list[float]:
    return [logprob / count for logprob, count in zip(logprobs, tokens, strict=True)]


def _pmi(logprobs: Logprobs, tokens: Sequence[int], blank: Logprobs | None) -> list[float]:
    if blank is None:
        raise ValueError("pmi needs log-probabilities under a blank image")
    return [logprob - without for logprob, without in zip(logprobs, blank, strict=True)]


def _prior(logprobs: Logprobs, tokens: Sequence[int], blank: Logprobs | None) -> list[float]:
    token = math.fsum(logprobs) / sum(tokens)
    return [logprob - count * token for logprob, count in zip(logprobs, tokens, strict=True)]


_NORMS: dict[Norm, Callable[[Logprobs, Sequence[int], Logprobs | None], list[float]]] = {
    "sum": _sum,
    "mean": _mean,
    "pmi": _pmi,
    "prior": _prior,
}

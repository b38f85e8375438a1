"""Linear layers whose rows do not depend on the rest of the batch.

A CPU matrix product splits its rows over threads and kernels by their number. Measured with torch
2.13 at 1 to 64 threads and ten shapes: with plain weights (MKL, float32) a row's bits depend on the
row count unless that is a multiple of four; with weights packed by oneDNN (float32 and bfloat16
without AMX, eleven shapes) only a single row differs. So all sequences of a batch go through one
product as contiguous rows, padded to a multiple of eight. bfloat16 on AMX needs more: see
``gemm_rows``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

ROW_MULTIPLE = 8  # row counts are rounded up to a multiple of this


def _gelu_tanh(states: Tensor) -> Tensor:
    return functional.gelu(states, approximate="tanh")


def _quick_gelu(states: Tensor) -> Tensor:
    return states * torch.sigmoid(1.702 * states)


# By transformers' names (ACT2FN in activations.py), those that models of these families come with.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}


class Linear(nn.Linear):
    """``nn.Linear`` followed by an activation (by name, "" is none) and a residual addition."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, activation: str = ""
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.activation = activation
        # float32 [O, 1] beside an int8 weight (see ``quantize.int8_weights``), else None.
        self.scales: Tensor | None = None
        # What reads the weight, piece by piece from top to bottom, where it is no more in memory
        # than while it is multiplied (see ``streamed``).
        self.stored: tuple[Callable[[], Tensor], ...] = ()

    @property
    def matrix(self) -> Tensor:
        """What is multiplied: the weight, in whatever layout."""
        return self.weight.detach()

    @matrix.setter
    def matrix(self, matrix: Tensor) -> None:
        self._parameters["weight"] = nn.Parameter(matrix, requires_grad=False)

    def prepared(self, weight: Tensor) -> Tensor:
        """A weight in the layout in which it is multiplied here."""
        return weight

    def reset_parameters(self) -> None:
        """Leave the weights uninitialized: a checkpoint fills them."""

    def sequences_per_gemm(self, length: int) -> int:
        """How many sequences of ``length`` tokens go into one product; 0: any number."""
        return 0

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002 - nn's
        """[..., in_features] to [..., out_features], ``residual`` of that shape added, which may be
        overwritten with the result."""
        rows = input.numel() // self.in_features
        # Strided rows, such as the last positions of a prefix, would be multiplied by another
        # kernel than contiguous ones.
        flat = input.reshape(rows, self.in_features).contiguous()
        short = -rows % ROW_MULTIPLE if flat.device.type == "cpu" else 0
        if short:
            flat = functional.pad(flat, (0, 0, 0, short))
        if flat.device.type == "cuda" and (fused := self._fused(flat, residual)) is not None:
            return fused.view(*input.shape[:-1], self.out_features)
        output = functional.linear(flat, self.weight, self.bias)[:rows]
        if self.activation:
            output = ACTIVATIONS[self.activation](output)
        output = output.view(*input.shape[:-1], self.out_features)
        return output if residual is None else output + residual

    def _fused(self, flat: Tensor, residual: Tensor | None) -> Tensor | None:
        """Rows [N, in_features] to [N, out_features] in one kernel of a GPU, where there is one for
        what this layer does."""
        bias: Tensor | None = self.bias
        if residual is not None:
            if bias is not None or self.activation or not residual.is_contiguous():
                return None
            # A sum of another tensor than the result would be copied there first.
            return residual.view(-1, self.out_features).addmm_(flat, self.weight.t())
        if self.activation == "relu" and bias is not None:
            return torch._addmm_activation(bias, flat, self.weight.t())
        return None


class ReplacementLinear(Linear):
    """Base of layers that take a ``Linear``'s place and hold its weight in another form."""

    def __init__(self, layer: Linear) -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, False, layer.activation)
        self.register_parameter("weight", None)
        self.bias = layer.bias
        self.stored = layer.stored
        self.training = layer.training


def replace_linear_layers(
    model: nn.Module, replacement: Callable[[str, Linear], Linear | None]
) -> None:
    """Put ``replacement(name, layer)`` in the place of each plain ``Linear`` inside ``model``.

    None leaves a layer where it is. Layers are replaced, and their weights freed, one by one.
    """
    # Parents alone: a list that held the layers would keep their weights alive.
    parents = [(path, each) for path, each in model.named_modules() if each._modules]
    for path, parent in parents:
        for name in list(parent._modules):
            layer = parent._modules[name]
            if type(layer) is Linear:
                new = replacement(f"{path}.{name}" if path else name, layer)
                if new is not None:
                    parent._modules[name] = new


def split_sequences(states: Tensor, layer: Linear) -> list[Tensor]:
    """States [B, T, D] in chunks of as many sequences as go into one product of ``layer``.

    Layers that run chunk by chunk need not concatenate the results of their products.
    """
    size = layer.sequences_per_gemm(states.shape[1])
    return list(states.split(size)) if size else [states]


def merge_sequences(chunks: Sequence[Tensor]) -> Tensor:
    """The inverse of ``split_sequences``."""
    return chunks[0] if len(chunks) == 1 else torch.cat(list(chunks))

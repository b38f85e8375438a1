"""Operations of torch as the pretended device sees them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

# One kernel on a device, whatever the CPU makes of it.
ONE_KERNEL = {
    getattr(aten, name).default
    for name in ("scaled_dot_product_attention", "rms_norm", "_fused_rms_norm")
    if hasattr(aten, name)
}
# The host needs a number, or a size, that the device computes.
WAITING = {
    aten._local_scalar_dense.default,
    aten.allclose.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_consecutive.default,
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Refused(RuntimeError):  # noqa: N818 - CUDA has no name for it
    """What CUDA, or torch on its behalf, would raise."""


def compute(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation on CPU tensors."""
    if func in (aten._softmax.default, aten._log_softmax.default) and args[2]:
        args = args[0].float(), args[1], False  # only devices convert on the way
    return func(*args, **kwargs)


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Those among arguments or results, and in lists among them."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


def mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """An argument or result whose tensors are changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([mapped(change, each) for each in value])
    return value


def name_of(func: Any) -> str:
    """``add_`` for ``aten::add_``."""
    return func._schema.name.removeprefix("aten::")


@functools.cache
def is_composite(func: Any) -> bool:
    """Whether an operation is made of others, which are kernels."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return func not in ONE_KERNEL and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), key
    )


@functools.cache
def written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Place and name of the arguments that an operation writes to."""
    return tuple(
        (number, argument.name)
        for number, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes to."""
    values = [
        args[number] if number < len(args) else kwargs.get(name)
        for number, name in written_arguments(func)
    ]
    return tensors_in(values)


def refuse_kernels(func: Any, args: Any, capability: tuple[int, int] = (9, 0)) -> None:
    """Raise what torch's products of eight-bit numbers refuse on CUDA devices of ``capability``,
    and do on a CPU."""
    name = name_of(func)
    if name not in ("_int_mm", "_scaled_mm"):
        return
    if capability < ((7, 5) if name == "_int_mm" else (8, 9)):
        raise Refused("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`")
    rows, inner = args[0].shape
    columns, step = args[1].shape[1], 8 if name == "_int_mm" else 16
    if name == "_int_mm" and rows <= 16:
        raise Refused(f"self.size(0) needs to be greater than 16, but got {rows}")
    if name == "_scaled_mm" and args[1].stride(0) != 1:
        raise Refused("mat2 must be col_major")
    if inner % step or columns % step:
        raise Refused(f"{name}: sizes {inner} and {columns} need to be multiples of {step}")

"""A device guard for a type of device that torch was built without.

torch asks a guard for the current device before it indexes, and finds it by the type of the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

_REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"  # of guards, by type, in libc10.so
_NUMBERS = {"cuda": 1, "mps": 13}  # of c10::DeviceType
_TYPES = 21  # of devices
_FUNCTIONS = 28  # virtual ones of c10::impl::DeviceGuardImplInterface, and some more
_forever: list[Any] = []  # what C++ has pointers to


@contextlib.contextmanager
def device_guard(kind: str, current: Callable[[], int]) -> Iterator[None]:
    """Inside, devices of this kind have a guard; ``current`` is the number of the current one.

    It is the CPU's, whose functions do nothing, with two in Python that say which device it is. A
    c10::Device is two bytes, its type and its index.
    """
    guards = _registry()
    table = ctypes.cast(guards[0], ctypes.POINTER(ctypes.c_void_p))[0]
    own = (ctypes.c_void_p * _FUNCTIONS)(*(ctypes.c_void_p * _FUNCTIONS).from_address(table))
    number = _NUMBERS[kind]
    type_of = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p)(lambda _: number)
    device_of = ctypes.CFUNCTYPE(ctypes.c_uint16, ctypes.c_void_p)(
        lambda _: number | current() << 8
    )
    own[0], own[2] = (ctypes.cast(each, ctypes.c_void_p).value for each in (type_of, device_of))
    guard = (ctypes.c_void_p * 1)(ctypes.addressof(own))
    _forever.extend((own, type_of, device_of, guard))
    before, guards[number] = guards[number], ctypes.addressof(guard)
    try:
        yield
    finally:
        guards[number] = before


def _registry() -> Any:
    library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libc10.so"))
    return (ctypes.c_void_p * _TYPES).in_dll(library, _REGISTRY)


def what_is_missing() -> str | None:
    """Why no device can be pretended here; None: one can."""
    if torch.cuda.is_available():
        return "there is a real GPU"
    needed = (
        "_disabled_torch_function_impl",
        "_dispatch_has_kernel_for_dispatch_key",
        "_only_lift_cpu_tensors",
        "_set_only_lift_cpu_tensors",
    )
    lacking = [f"torch._C.{name}" for name in needed if not hasattr(torch._C, name)]
    try:
        _registry()
    except (OSError, ValueError) as error:
        lacking.append(f"the registry of device guards ({error})")
    return f"this torch lacks {', '.join(lacking)}" if lacking else None

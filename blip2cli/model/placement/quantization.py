"""Choice of who computes the products of quantized layers, with the reason as text."""

from __future__ import annotations

import torch

from blip2cli.errors import OptionError, either, option
from blip2cli.model.quantize.library_layers import QUANTIZERS, Quantizer, installed_quantizer
from blip2cli.options import Quantize

_NAMES: tuple[Quantize, ...] = ("int8", "fp8", *(name for name in QUANTIZERS if name != "int8"))


def choose_quantizer(
    name: Quantize, device: torch.device, dtype: torch.dtype
) -> tuple[Quantizer | None, str]:
    """The package whose layers are used (None: ours), and by what, or how fast, they compute.

    Raises OptionError where there are no such products.
    """
    given = f"{option('quantize')} {name}"
    if name not in _NAMES:
        raise OptionError(
            "quantize", f"{given} is not supported", f"use one of {', '.join(_NAMES)}"
        )
    if device.type == "cuda":
        return _on_cuda(name, device, dtype)
    if device.type != "cpu":
        raise OptionError(
            "quantize",
            f"{given} does not run on {device.type}",
            f"use {option('device')} cpu, or leave it out",
        )
    if name != "int8":
        slow = ": on a CPU four bits are slower than eight, and less exact"
        raise OptionError(
            "quantize",
            f"{given} is for GPUs{slow if name == 'int4' else ''}",
            f"use {option('quantize')} int8",
        )
    from blip2cli.model.quantize.int8_layers import int8_is_faster, max_exact_level

    exact = max_exact_level()
    if not exact:
        raise OptionError(
            "quantize",
            f"{given} needs a torch with oneDNN, and a processor that it multiplies eight-bit "
            "numbers on",
            "leave it out",
        )
    if not int8_is_faster("vision_model.", dtype):
        return None, "but the vision encoder's, quicker as they are on AMX"
    if exact == 255:
        return None, "the CPU has instructions for them"
    return None, "slower than on a CPU with VNNI, and states are rounded to seven bits"


def _on_cuda(
    name: Quantize, device: torch.device, dtype: torch.dtype
) -> tuple[Quantizer | None, str]:
    given = f"{option('quantize')} {name}"
    if name in ("int8", "fp8"):
        from blip2cli.model.quantize.cuda_layers import multiplies_exactly

        if name == "fp8" and dtype is not torch.bfloat16:
            raise OptionError(
                "quantize", f"{given} computes in bfloat16", f"use {option('dtype')} bfloat16"
            )
        if multiplies_exactly(name, device):
            return None, "the GPU has instructions for them"
        if name == "fp8":
            raise OptionError(
                "quantize",
                f"{given} needs a GPU that multiplies such numbers, from compute capability 8.9 "
                "on, and a torch with a scale for each row there",
                f"use {option('quantize')} int8, or leave it out",
            )
    quantizer = installed_quantizer(name)
    if quantizer is not None:
        return quantizer, f"by {quantizer.package}"
    packages = [each.package for each in QUANTIZERS[name]]
    where = "on a GPU that multiplies no such numbers itself" if name == "int8" else "on a GPU"
    raise OptionError(
        "quantize",
        f"{given} {where} needs the package {either(packages)}: pip install {packages[0]}, or "
        f"leave {option('quantize')} out",
    )

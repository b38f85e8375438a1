"""The devices that a run is given: one, or several alike."""

from __future__ import annotations

from collections.abc import Sequence

from blip2cli.errors import OptionError, option

ALL_CUDA = "cuda:all"


def check_devices(device: str) -> None:
    """Raise ``OptionError`` where several devices are named that cannot run one job together."""
    if "," not in device:
        return
    names = device.split(",")
    given = f"{option('device')} {device}"
    if not all(names) or any(map(str.isspace, device)):
        raise OptionError(
            "device",
            f"{given} has an empty name or a space",
            "separate devices by one comma, as in cpu,cpu",
        )
    if ALL_CUDA in names:
        raise OptionError(
            "device", f"{given}: {ALL_CUDA} names all GPUs there are", "give it by itself"
        )
    if "auto" in names:
        raise OptionError(
            "device", f"{given}: auto chooses one device", "name the devices, as in cuda:0,cuda:1"
        )
    kinds = {name.partition(":")[0] for name in names}
    if len(kinds) > 1:
        raise OptionError(
            "device",
            f"{given} names unlike devices, whose rows would differ in their last digits",
            "give devices of one kind",
        )


def several(device: str) -> bool:
    """Whether ``device`` may name more than one."""
    return "," in device or device == ALL_CUDA


def devices(device: str) -> tuple[str, ...]:
    """The names of the devices, ``cuda:all`` spelled out, which imports torch.

    Raises ModelError where there is none.
    """
    if device != ALL_CUDA:
        return tuple(device.split(","))
    from blip2cli.model.placement.cuda_devices import cuda_count, no_cuda

    count = cuda_count()
    if count == 0:
        raise no_cuda(ALL_CUDA)
    return tuple(f"cuda:{number}" for number in range(count))


def labels(devices: Sequence[str]) -> list[str]:
    """The names of devices; those that occur more than once, numbered."""
    return [
        f"{device} ({devices[: number + 1].count(device)})" if devices.count(device) > 1 else device
        for number, device in enumerate(devices)
    ]

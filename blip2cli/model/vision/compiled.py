"""The image side as compiled code: ``--compile``.

torch's compiler joins what lies between the matrix products (norms, sums, the copies around
attention) into loops of its own, in C++ on a CPU and in Triton on CUDA. The products stay what they
are: a layer whose weight is packed is called as it is from within the compiled code, which is
quicker than a plain layer that the compiler packs by itself (``freezing``), keeps its code in the
cache, and needs no second copy of the weight.

**One shape.** Images go through in chunks of one size; the last is filled up and what it gives is
cut. So nothing is ever compiled a second time, and a row is the same whatever the batch.

**Layers alike are compiled once**, as regions, however many a model has.

**What compiling costs** is in the README. The code is kept in the user's cache directory, so that
the next start only has to trace the model; importing the compiler and tracing take seconds all the
same, and so nothing is compiled unless it is asked for. The compiler is imported here and nowhere
else, and only then.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from blip2cli.errors import OptionError
from blip2cli.model.layers.linear import Linear
from blip2cli.model.nets import qformer, vision
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel
from blip2cli.model.placement.batch_size import model_memory
from blip2cli.model.vision.features import ImageFeatures, vision_forward
from blip2cli.system.library_logging import silence_packages

if TYPE_CHECKING:
    from blip2cli.images.preprocess import PixelSpec

# Images a chunk; a filled one costs as much as a full one. Small models spend much of a chunk in
# Python, in which threads wait for one another: measured with ``tiny`` in two lanes, 0.92 of the
# speed of what is not compiled at 8, 0.98 at 16 and 1.01 to 1.03 at 32.
CHUNKS = {"cpu": 8, "cuda": 16}
SMALL_CHUNK = 32
SMALL_BELOW = 64 << 20  # bytes of weights
CACHE = "TORCHINDUCTOR_CACHE_DIR"


class CompiledFeatures:
    """``compute_features`` of one model, compiled for pixels of ``spec``'s size.

    May be called from several threads. Raises OptionError when it cannot be compiled.
    """

    def __init__(self, name: str, model: Blip2Net, spec: PixelSpec) -> None:
        began = time.perf_counter()
        keep_code()
        device = model.query_tokens.device
        self._chunk = chunk_size(model, device)
        self._run = _compiled(model)
        shape = (self._chunk, 3, spec.height, spec.width)
        pixels = torch.zeros(shape, dtype=model.dtype, device=device)
        with _explained(name), silence_packages(), _alone(device):
            self._pass(pixels)
        self.seconds = time.perf_counter() - began

    def __call__(self, pixel_values: Tensor) -> ImageFeatures:
        """Run the vision side on normalised pixels [B, 3, H, W]."""
        count = len(pixel_values)
        short = -count % self._chunk if count else self._chunk
        if short:
            pixel_values = functional.pad(pixel_values, (0, 0) * 3 + (0, short))
        made = [self._pass(chunk) for chunk in pixel_values.split(self._chunk)]
        if count == self._chunk:
            return ImageFeatures(*made[0])
        # Copied, so that what a chunk was filled up with is let go.
        return ImageFeatures(*(torch.cat(parts)[:count] for parts in zip(*made, strict=True)))

    @torch.inference_mode()
    def _pass(self, chunk: Tensor) -> tuple[Tensor, ...]:
        # Its layout in memory is part of what was compiled for.
        return self._run(chunk.contiguous())


def chunk_size(model: Blip2Net, device: torch.device) -> int:
    """Images a chunk: by the model and where it runs, and nothing else."""
    need = model_memory(model)
    if device.type == "cpu" and need.weights < SMALL_BELOW:
        return SMALL_CHUNK
    return CHUNKS[device.type]


def check_tools(device: torch.device) -> None:
    """Raise OptionError when what compiling needs on ``device`` is not there. Loads nothing."""
    if device.type not in CHUNKS:
        raise OptionError(
            f"--compile does not work on {device.type}; use --device cpu, or leave it out."
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise OptionError(
            "--compile on a GPU needs the package triton: pip install triton, or leave --compile "
            "out."
        )
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise OptionError(
            f"--compile on a CPU needs a C++ compiler, and {compiler} is not there: install it, "
            "name another in the environment variable CXX, or leave --compile out."
        )


def keep_code() -> Path:
    """Have the compiler keep its code where it survives, unless the user chose a place.

    Returns the place. Raises OptionError when it cannot be written.
    """
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    try:
        kept = os.environ.get("XDG_CACHE_HOME", "")
        # A relative one is to be ignored, says the XDG Base Directory Specification.
        base = Path(kept) if os.path.isabs(kept) else Path.home() / ".cache"
        folder = base / "blip2cli" / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except (OSError, RuntimeError) as error:  # no home directory is a RuntimeError
        raise OptionError(
            f"--compile cannot keep its code in the user's cache directory ({error}); set {CACHE} "
            "to a folder that can be written, or leave --compile out."
        ) from None
    os.environ[CACHE] = str(folder)
    return folder


def _compiled(model: Blip2Net) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The image side of ``model``, to be compiled at its first call."""
    _mark(model.vision_model)
    _mark(model.qformer)
    if isinstance(model, GenerationModel):
        _mark(model.language_projection)

    def run(pixel_values: Tensor) -> tuple[Tensor, ...]:
        return vision_forward(model, pixel_values)

    # The compiler keeps what it made by the code object, which is to be this model's alone.
    code = run.__code__.replace(co_name=f"image_side_{next(_models)}")
    own = FunctionType(code, run.__globals__, code.co_name, closure=run.__closure__)
    compiled = torch.compile(
        own,
        fullgraph=True,
        dynamic=False,
        options={
            # As many threads as torch has at the call, not at the compilation: see ``lanes``.
            "cpp.dynamic_threads": True,
            # The shape is seen to here, and weights do not change. A guard on torch's threads,
            # among others, would have all compiled again in each lane.
            "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
        },
    )
    return cast(Callable[[Tensor], tuple[Tensor, ...]], compiled)


_models = itertools.count()
_numbers = itertools.count()
_layers: WeakValueDictionary[int, Linear] = WeakValueDictionary()
_REGIONS: tuple[type[nn.Module], ...] = (vision.Layer, qformer.Layer)


def _mark(part: nn.Module) -> None:
    """Make the layers of ``part`` what the compiler can deal with, in place."""
    for module in part.modules():
        kind: type[nn.Module] = type(module)
        if kind in _REGIONS:
            forward = torch.compiler.nested_compile_region(kind.forward)
            module.__class__ = _kind(kind, "Region", forward=forward)
        elif isinstance(module, Linear) and kind is not Linear:
            number = next(_numbers)
            _layers[number] = module
            # A tensor, which regions that are otherwise alike may differ in.
            module.register_buffer("number", torch.tensor(number), persistent=False)
            whole = _kind(kind, "Whole", forward=_call, kind=kind)
            module.__class__ = cast(type[Linear], whole)


_kinds: dict[tuple[type[nn.Module], str], type[nn.Module]] = {}


def _kind(base: type[nn.Module], name: str, **own: Any) -> type[nn.Module]:
    """The one class of this name on top of ``base``."""
    if (base, name) not in _kinds:
        _kinds[base, name] = type(name, (base,), own)
    return _kinds[base, name]


def _call(layer: Any, input: Tensor, added: Tensor | None = None) -> Tensor:  # noqa: A002
    """The layer as one operation, into which the compiler does not look."""
    made: Tensor
    if torch.compiler.is_compiling():
        made = torch.ops.blip2cli.layer(input, added, layer.number, layer.out_features)
    else:
        made = layer.kind.forward(layer, input, added)
    return made


def _run_layer(states: Tensor, added: Tensor | None, number: Tensor, width: int) -> Tensor:
    layer: Any = _layers[int(number)]
    made: Tensor = layer.kind.forward(layer, states, added)
    return made


def _run_nothing(states: Tensor, added: Tensor | None, number: Tensor, width: int) -> Tensor:
    return states.new_empty((*states.shape[:-1], width))


_library = torch.library.Library("blip2cli", "DEF")
_library.define("layer(Tensor states, Tensor? added, Tensor number, int width) -> Tensor")
_library.impl("layer", _run_layer, "CompositeExplicitAutograd")
_library.impl("layer", _run_nothing, "Meta")


@contextmanager
def _alone(device: torch.device) -> Iterator[None]:
    """Compile without processes that would outlive it."""
    from torch._inductor import config
    from torch._inductor.async_compile import shutdown_compile_workers

    try:
        with config.patch(compile_threads=1 if device.type == "cpu" else config.compile_threads):
            yield
    finally:
        shutdown_compile_workers()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the compiler raises into a sentence."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # compilers fail in every way
        raise OptionError(
            f"--compile: torch cannot compile {name} here ({_said(error)}); leave --compile out."
        ) from error


def _said(error: Exception) -> str:
    """The line that says most: a compiler's first error, else the first one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = [line for line in lines if "error: " in line]
    return (found or lines or [type(error).__name__])[0].rstrip(".")

"""Image decoder: bytes of a file → an upright RGB picture, or an error with a stable name.

The picture is what ``PIL.Image.open(file).convert("RGB")`` gives, after these steps:

* EXIF orientation is applied, so width and height are those a person sees.
* Transparency (alpha, palette entries, a transparent colour) is composited on white.
* 16-bit greyscale is scaled by 1/257, so white stays white; 32-bit and floating-point greyscale
  has no agreed white and is stretched, see ``to_rgb``.
* Of animations and of files with several pages the first is taken. Colour profiles are ignored,
  as image processors and data-set libraries do, except that Lab is converted to sRGB.

Only the formats in ``FORMATS`` are ever parsed: judged by content, never by suffix, and none that
starts another program (EPS would).

What a failure is called is decided in this order:

====================== ==========================================================================
``error_type``         what is known of the file
====================== ==========================================================================
``empty``              it holds no bytes
``too_large``          its blocks, memory or steps exceed ``limits``; nothing was decoded
``too_many_pixels``    more than ``MAX_PIXELS``, or ``MAX_SIDE`` in one direction
``out_of_memory``      decoding needs more memory than there is
``absurd_metadata``    text or profile blocks that unpack to more than any reader accepts
``not_an_image``       its first bytes belong to no kind in ``sniff`` or ``unread_kinds``
``unsupported_format`` a kind in ``unread_kinds``, or a variant in ``unread_variants``; the
                       message has its name. Nothing is said about damage: nobody has looked
``truncated``          a kind that is read, and its end is missing (``ends_early``)
``corrupt``            a kind that is read, and its end is there
====================== ==========================================================================

Workers add ``timeout`` and ``decoder_crashed``, see ``batch_stream``.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from dataclasses import dataclass
from typing import ClassVar, cast

from PIL import Image, UnidentifiedImageError

from blip2cli.errors import ImageError
from blip2cli.images.ends_early import ends_early
from blip2cli.images.limits import (
    check_blocks,
    check_cost,
    check_tiff,
    too_many_pixels,
)
from blip2cli.images.netpbm import START as NETPBM
from blip2cli.images.netpbm import read_netpbm
from blip2cli.images.pillow_slips import put_right, readable_tiff, wide_planes
from blip2cli.images.sniff import (
    TIFF_STARTS,
    claimed_format,
    what_text,
    without_leading_blanks,
    without_png_metadata,
)
from blip2cli.images.tiff_header import is_camera_raw, read_directory
from blip2cli.images.to_rgb import to_rgb
from blip2cli.images.unread_kinds import unread_kind
from blip2cli.images.unread_variants import unread_variant
from blip2cli.system.silence_stderr import silence_stderr

# Names as Pillow knows them. JPEG includes MPO, PNG includes APNG, PPM the whole Netpbm family.
# fmt: off
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF",  # the usual ones are tried first
    "JPEG2000", "PPM", "QOI", "ICO", "DIB",
)
# fmt: on
_BY_PILLOW = tuple(name for name in FORMATS if name != "PPM")

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRANSPOSED = (5, 6, 7, 8)  # orientations that exchange width and height


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB picture; ``width`` and ``height`` are the file's, in pixels."""

    image: Image.Image
    width: int
    height: int


# What Pillow warns about it then reads well. numpy's warnings count as those of its caller.
_WARNERS = r"(PIL|blip2cli\.images\.decode)(\.|$)"


def decode(data: bytes, at_least: tuple[int, int] | None = None) -> DecodedImage:
    """Decode the content of one image file. Raises ImageError, see the table above.

    With ``at_least``, a width and a height in pixels, a JPEG is decoded at the smallest of the
    scales 1, 1/2, 1/4 and 1/8 that makes it no smaller than that (libjpeg's, which leaves out the
    finer terms of the cosine transform): quicker, and not what decoding it whole and then
    resizing gives.

    For the main thread: it changes, and puts back, the filters of warnings; for TIFF files also
    where this process's file descriptor 2 leads.
    """
    tiff = data.startswith(TIFF_STARTS)
    with warnings.catch_warnings(), silence_stderr() if tiff else contextlib.nullcontext():
        warnings.simplefilter("ignore")
        return decode_unsilenced(data, at_least)


def decode_unsilenced(data: bytes, at_least: tuple[int, int] | None = None) -> DecodedImage:
    """The same in any thread: warnings and what libtiff writes to stderr are not silenced."""
    if not data:
        raise ImageError("empty", "The file is empty.")
    try:
        try:
            return _upright(data, at_least)
        except ValueError as error:
            # Text and profile blocks that Pillow refuses to unpack; the pixels are fine without.
            slim = without_png_metadata(data) if _metadata_limit(error) else None
            if slim is None:
                raise
        return _upright(slim, at_least)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("out_of_memory", "There is not enough memory to decode it.") from None
    except Exception as error:  # plugins raise anything from IndexError to SyntaxError
        behind_blanks = without_leading_blanks(data)
        if behind_blanks is not None:
            return decode_unsilenced(behind_blanks, at_least)
        raise _as_image_error(error, data) from error


class WarningsIgnored:
    """Filter: warnings of decoding are ignored in every thread until ``end`` or garbage collection.

    ``warnings.catch_warnings`` keeps the whole list of filters and puts it back, which is wrong
    as soon as two threads do it; this adds one filter, and the last one to end takes it away.
    """

    _lock = threading.RLock()  # a dropped one may end while its thread is in here
    _count = 0
    _added: ClassVar[list[object]] = []

    def __init__(self) -> None:
        shared = WarningsIgnored
        self._ended = False
        with shared._lock:
            if not shared._count:
                before = list(warnings.filters)
                warnings.filterwarnings("ignore", module=_WARNERS)
                shared._added = [entry for entry in warnings.filters if entry not in before]
            shared._count += 1

    def end(self) -> None:
        """No longer ignore them. Harmless when called again."""
        shared = WarningsIgnored
        with shared._lock:
            if self._ended:
                return
            self._ended = True
            shared._count -= 1
            if not shared._count:
                for entry in shared._added:
                    with contextlib.suppress(ValueError):  # whoever put a list back dropped it
                        cast("list[object]", warnings.filters).remove(entry)

    def __del__(self) -> None:
        self.end()


def _metadata_limit(error: Exception) -> bool:
    """True for Pillow's limits on one block (1 MiB) and on all text of a file (64 MiB)."""
    words = str(error)
    return isinstance(error, ValueError) and ("MAX_TEXT" in words or "data too large" in words)


def _upright(data: bytes, at_least: tuple[int, int] | None) -> DecodedImage:
    if NETPBM.match(data):
        rgb = to_rgb(read_netpbm(data))
        return DecodedImage(rgb, *rgb.size)
    check_blocks(data)
    white = unsigned = False
    strip = 0
    directory = read_directory(data) if data.startswith(TIFF_STARTS) else None
    if directory is not None:
        if is_camera_raw(data, directory):  # Pillow would read the thumbnail
            raise _unsupported(unread_kind(data) or "a camera's raw file")
        strip = check_tiff(data, directory)
        planes = wide_planes(data, directory)
        if planes is not None:
            rgb = to_rgb(planes)
            turn = _TRANSPOSE.get(directory.first(0x0112, 1))
            rgb = rgb if turn is None else rgb.transpose(turn)
            return DecodedImage(rgb, *rgb.size)
        data, white, unsigned = readable_tiff(data, directory)
    with Image.open(io.BytesIO(data), formats=_BY_PILLOW) as image:
        check_cost(image, data, strip)
        size = None
        if at_least is not None and image.format in ("JPEG", "MPO"):
            size = image.size
            image.draft(None, at_least[::-1] if _orientation(image) in _TRANSPOSED else at_least)
        # Loading comes before the orientation: some readers turn the picture themselves.
        image.load()
        orientation = _orientation(image)
        loaded: Image.Image = image
        if image.mode == "CMYK" or "transparency" in image.info:
            loaded = put_right(image, data)
        rgb = to_rgb(loaded, white, unsigned)
        width, height = size or image.size
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    if orientation in _TRANSPOSED:
        width, height = height, width
    return DecodedImage(rgb, width, height)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason to lose the picture
        return 1
    return value if isinstance(value, int) else 1


def _unsupported(kind: str) -> ImageError:
    return ImageError(
        "unsupported_format", f"It is {kind}, which is not read; convert it to JPEG or PNG."
    )


def _as_image_error(error: Exception, data: bytes) -> ImageError:
    """Turn what a decoder raised into an error with a stable name and one sentence."""
    if isinstance(error, Image.DecompressionBombError):
        return too_many_pixels("It says it has too many pixels")
    if _metadata_limit(error):
        return ImageError("absurd_metadata", "Its text or colour profile is absurdly large.")
    name, readable = claimed_format(data)
    if name is None:
        return ImageError("not_an_image", f"The content is {what_text(data)}.")
    if not readable:
        return _unsupported(name)
    variant = unread_variant(data, name, error)
    if variant is not None:
        return _unsupported(variant)
    if ends_early(data, name):
        return ImageError("truncated", f"The {name} file ends early.")
    if isinstance(error, UnidentifiedImageError):
        return ImageError(
            "corrupt", f"It starts like a {name} file, but its header is damaged or unusual."
        )
    detail = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return ImageError("corrupt", f"The {name} data are damaged: {detail}.")

"""Pictures that would cost minutes or gigabytes are refused before they are decoded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images.decode import decode
from blip2cli.images.limits import check_cost, check_tiff
from blip2cli.images.tiff_header import read_directory
from tests.images.helpers import failure
from tests.images.pictures import encoded, gradient
from tests.torture import bombs


# Those that take seconds to make are left to ``make torture``.
@pytest.mark.parametrize(
    "name", sorted(bombs.REFUSED.keys() - {"AVIF, RGBA", "JPEG 2000, one tile"})
)
def test_bombs_are_refused(name: str) -> None:
    error_type, make = bombs.REFUSED[name]
    error = failure(make())
    assert error.error_type == error_type, str(error)


def test_what_photographs_and_scans_hold_is_not_refused() -> None:
    many = encoded(gradient(), "MPO", save_all=True, append_images=[gradient()] * 5)
    assert decode(many).width == 31
    progressive = encoded(gradient(640, 480), "JPEG", progressive=True)
    # A film behind the picture, and thumbnails in it, hold bytes that look like scans.
    exif = b"Exif\0\0" + b"\xff\xda\0\x08" * 3000
    data = encoded(gradient(640, 480), "JPEG", progressive=True, exif=exif)
    assert decode(data + b"\xff\xda\0\x08" * 9000).width == 640
    assert decode(progressive).width == 640
    texts = b"".join(bombs.png_chunk(b"tEXt", b"a\0b") for _ in range(90_000))
    data = encoded(gradient(), "PNG")
    assert decode(data[:33] + texts + data[33:]).width == 31
    assert decode(encoded(Image.new("RGBA", (256, 256)), "ICO")).width == 256
    # Every strip of every page is a JPEG with a scan of its own.
    page = gradient(2480, 3508)
    data = encoded(page, "TIFF", compression="jpeg", save_all=True, append_images=[page])
    assert decode(data).width == 2480


MEASURE = """
import sys
from pathlib import Path
from blip2cli.images.decode import decode
def bytes_of(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10
data = Path(sys.argv[1]).read_bytes()
decode(Path(sys.argv[2]).read_bytes())
Path("/proc/self/clear_refs").write_text("5")
before = bytes_of("VmRSS")
decode(data)
print(bytes_of("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGBA", "PNG", {"compress_level": 1}),
        ("F", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("RGBA", "WEBP", {"lossless": True, "method": 0, "quality": 0}),
        ("RGB", "JPEG2000", {}),
    ],
)
def test_memory_is_what_the_limit_counts(
    tmp_path: Path, mode: str, kind: str, options: dict[str, object]
) -> None:
    file, small = tmp_path / "picture", tmp_path / "small"
    data = encoded(Image.new(mode, (4500, 4500)), kind, **options)
    file.write_bytes(data)
    small.write_bytes(encoded(gradient(), kind))
    command = [sys.executable, "-c", MEASURE, str(file), str(small)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    directory = read_directory(data) if kind == "TIFF" else None
    strip = 0 if directory is None else check_tiff(data, directory)
    # Strips and single allocations do not grow with the picture.
    memory = int(done.stdout) - (72 << 20)
    with Image.open(file) as image, pytest.raises(ImageError, match="MiB of memory, over"):
        check_cost(image, data, strip, memory)

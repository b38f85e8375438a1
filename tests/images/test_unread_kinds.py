"""Sound files of kinds that are not read are called by the name of their kind."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile

import pytest
from PIL import Image

from tests.images.helpers import failure, pixels
from tests.images.pictures import encoded, gradient


def boxed(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(200)


def tga(kind: int = 2, depth: int = 24, footer: bool = False) -> bytes:
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, 3, 2, depth, 0)
    return head + bytes(3 * 2 * depth // 8) + (bytes(8) + b"TRUEVISION-XFILE.\0") * footer


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    return encoded(image or gradient(), kind, **options)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", saved("PNG"))
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"abcd"))
    return buffer.getvalue()


SIGNED = b"\xff\xd8\xff\xf7\0\x0b\x08\0\x09\0\x09\1\1\x11\0\xff\xda\0\x08\1\1\0\0\0\0abc\xff\xd9"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (boxed(b"heic"), "HEIC"),
        (boxed(b"mif1"), "HEIF"),
        (boxed(b"isom"), "MP4"),
        (boxed(b"qt  "), "QuickTime"),
        (boxed(b"crx "), "CR3"),
        (b"\0\0\0\x08wide\0\0\0\0mdat" + bytes(40), "QuickTime"),
        (b"\xff\x0a\xfa\x1f" + bytes(30), "JPEG XL"),
        (b"II\xbc\x01\x20\0\0\0" + bytes(30), "JPEG XR"),
        (b"8BPS\0\1" + bytes(30), "Photoshop"),
        (b"gimp xcf v011\0" + bytes(30), "GIMP"),
        (b"\x76\x2f\x31\x01\2\0\0\0" + bytes(30), "OpenEXR"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\nabcd", "Radiance"),
        (bytes(128) + b"DICM" + bytes(30), "DICOM"),
        (b"PF\n2 2\n-1.0\n" + bytes(48), "PFM"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nENDHDR\n\0", "PAM"),
        (b"BPG\xfb" + bytes(30), "BPG"),
        (b"\xabKTX 11\xbb\r\n\x1a\n" + bytes(30), "KTX"),
        (b"AT&TFORM\0\0\0\x20DJVU" + bytes(30), "DjVu"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), "CR2"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(30), "RAF"),
        (b"IIRO\x08\0\0\0" + bytes(30), "ORF"),
        (b"IIU\0\x18\0\0\0" + bytes(30), "RW2"),
        (b"\xd7\xcd\xc6\x9a" + bytes(30), "WMF"),
        (b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(30), "EMF"),
        (b"\0\0\2\0\1\0" + bytes(30), "cursor"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "EPS"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\x1a\x45\xdf\xa3" + bytes(30), "WebM"),
        (b"RIFF\x24\0\0\0AVI LIST", "AVI"),
        (b"RIFF\x24\0\0\0CDR9vrsn", "CorelDRAW"),
        (b"#define x_width 8\n#define x_height 1\nstatic char x_bits[] = {0};", "XBM"),
        (b"/* XPM */\nstatic char *x[] = {", "XPM"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS"),
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X" + bytes(30), "resource fork"),
        (gzip.compress(b"abc", mtime=0), "gzip"),
        (zipped(), "ZIP"),
        (tarred(), "tar archive"),
        (tga(), "TGA"),
        (tga(footer=True), "TGA"),
        (saved("TGA"), "TGA"),
        (saved("TGA", compression="tga_rle"), "TGA"),
        (saved("TGA", gradient().convert("P")), "TGA"),
        (saved("PCX"), "PCX"),
        (saved("SGI"), "SGI"),
        (saved("DDS"), "DDS"),
        (saved("ICNS", Image.new("RGB", (32, 32))), "ICNS"),
        (saved("XBM", gradient().convert("1")), "XBM"),
        (saved("PDF"), "PDF"),
        (saved("MSP", gradient().convert("1")), "MSP"),
        (saved("BLP", gradient().convert("P")), "BLP"),
    ],
)
def test_kinds_that_are_not_read(data: bytes, kind: str) -> None:
    error = failure(data)
    assert error.error_type == "unsupported_format", str(error)
    assert kind in str(error)
    # Cut short or damaged further in, it is still of that kind.
    if not data.endswith(b"XFILE.\0") and kind not in ("TGA", "PCX"):
        assert kind in str(failure(data[:-1]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "a web page (HTML)"),
        (b"  <html><svg></svg></html>", "a web page (HTML)"),
        (b"Access denied\n", "text"),
        (bytes(range(256)), "not an image of a known kind"),
    ],
)
def test_what_is_no_image_is_said_in_words(data: bytes, words: str) -> None:
    error = failure(data)
    assert error.error_type == "not_an_image"
    assert words in str(error)


@pytest.mark.parametrize("blanks", [b"\r\n", b"\n\n\t ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_blanks_before_a_picture_are_passed_over(blanks: bytes, kind: str) -> None:
    data = encoded(gradient(), kind)
    assert (pixels(blanks + data) == pixels(data)).all()
    assert failure(blanks + data[: len(data) // 2]).error_type == "truncated"
    assert failure(blanks + b"nothing of the kind" * 9).error_type == "not_an_image"

"""Table of kinds of files that are not read here, by their first bytes.

Each has a name for people, so that nobody takes a sound file for a damaged one. Sources: the
magic numbers of the formats' specifications and of ``file`` (https://github.com/file/file).
"""

from __future__ import annotations

import re

# First bytes, where they stand, and the name.
# fmt: off
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    # pictures
    (b"\xff\x0a", 0, "JPEG XL"), (b"\0\0\0\x0cJXL \r\n\x87\n", 0, "JPEG XL"),
    (b"II\xbc", 0, "JPEG XR"), (b"BPG\xfb", 0, "BPG"), (b"FLIF", 0, "FLIF"),
    (b"8BPS", 0, "a Photoshop document"), (b"gimp xcf", 0, "a GIMP document"),
    (b"SIMPLE  =", 0, "FITS"), (b"DDS ", 0, "DDS"),
    (b"\x76\x2f\x31\x01", 0, "OpenEXR"), (b"icns", 0, "ICNS"), (b"#?RADIANCE", 0, "Radiance HDR"),
    (b"#?RGBE", 0, "Radiance HDR"), (b"DICM", 128, "DICOM"), (b"n+1\0", 344, "NIfTI"),
    (b"NRRD000", 0, "NRRD"), (b"MAP ", 208, "MRC"), (b"SDPX", 0, "DPX"), (b"XPDS", 0, "DPX"),
    (b"\x80\x2a\x5f\xd7", 0, "Cineon"), (b"\xabKTX ", 0, "KTX"), (b"PVR\x03", 0, "PVR"),
    (b"\x13\xab\xa1\x5c", 0, "ASTC"), (b"VTF\0", 0, "VTF"), (b"BLP1", 0, "BLP"),
    (b"BLP2", 0, "BLP"), (b"\x01\xda\0", 0, "SGI"), (b"\x01\xda\x01", 0, "SGI"),
    (b"\x59\xa6\x6a\x95", 0, "a Sun raster picture"), (b"/* XPM */", 0, "XPM"),
    (b"! XPM2", 0, "XPM"), (b"DanM", 0, "MSP"), (b"LinS", 0, "MSP"), (b"\x8aMNG", 0, "MNG"),
    (b"\x8bJNG", 0, "JNG"), (b"AT&TFORM", 0, "DjVu"), (b"PF\n", 0, "a PFM picture in colour"),
    (b"PF\r\n", 0, "a PFM picture in colour"), (b"PF ", 0, "a PFM picture in colour"),
    (b"P7\n", 0, "PAM"), (b"P7 332", 0, "an XV thumbnail"), (b"PG ML", 0, "PGX"),
    (b"PG LM", 0, "PGX"), (b"id=ImageMagick", 0, "MIFF"), (b"LBLSIZE=", 0, "VICAR"),
    (b"\x3a\xde\x68\xb1", 0, "DCX"),
    (b"ILBM", 8, "IFF ILBM"), (b"PBM ", 8, "IFF PBM"),
    (b"GRIB", 0, "GRIB"), (b"BUFR", 0, "BUFR"),
    (b"\x11\xaf", 4, "an FLI animation"), (b"\x12\xaf", 4, "an FLC animation"),
    (b"\xd7\xcd\xc6\x9a", 0, "WMF"), (b"\x01\0\x09\0\0\x03", 0, "WMF"), (b" EMF", 40, "EMF"),
    (b"FORM", 0, "IFF"), (b"farbfeld", 0, "farbfeld"),
     (b"\x97JB2\r\n\x1a\n", 0, "JBIG2"),
    # raw files of cameras
    (b"II\x2a\0\x10\0\0\0CR", 0, "a camera's raw file (CR2)"),
    (b"II\x1a\0\0\0HEAPCCDR", 0, "a camera's raw file (CRW)"),
    (b"IIRO", 0, "a camera's raw file (ORF)"), (b"IIRS", 0, "a camera's raw file (ORF)"),
    (b"MMOR", 0, "a camera's raw file (ORF)"), (b"IIU\0", 0, "a camera's raw file (RW2)"),
    (b"FUJIFILMCCD-RAW", 0, "a camera's raw file (RAF)"),
    (b"FOVb", 0, "a camera's raw file (X3F)"), (b"\0MRM", 0, "a camera's raw file (MRW)"),
    # documents
    (b"%PDF-", 0, "PDF"), (b"%!PS", 0, "PostScript"), (b"\x04%!PS", 0, "PostScript"),
    (b"\xc5\xd0\xd3\xc6", 0, "EPS"), (b"{\\rtf", 0, "an RTF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0, "an OLE document"),
    # films and sound
    (b"\x1a\x45\xdf\xa3", 0, "a Matroska or WebM video"), (b"AVI ", 8, "an AVI video"),
    (b"WAVE", 8, "a sound file"), (b"ACON", 8, "an animated cursor"),
    (b"\0\0\x01\xba", 0, "an MPEG video"), (b"\0\0\x01\xb3", 0, "an MPEG video"),
    (b"FLV\x01", 0, "an FLV video"), (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "a WMV video"),
    (b"OggS", 0, "an Ogg file"), (b"fLaC", 0, "a sound file"), (b"ID3", 0, "a sound file"),
    (b"YUV4MPEG2", 0, "a Y4M video"), (b"DKIF", 0, "an IVF video"), (b"CWS", 0, "Flash"),
    (b"FWS", 0, "Flash"), (b"moov", 4, "a QuickTime video"), (b"mdat", 4, "a QuickTime video"),
    (b"wide", 4, "a QuickTime video"), (b"skip", 4, "a QuickTime video"),
    # archives and data
    (b"PK\x03\x04", 0, "a ZIP archive"), (b"PK\x05\x06", 0, "a ZIP archive"),
    (b"\x1f\x8b", 0, "a gzip file"), (b"BZh", 0, "a bzip2 file"),
    (b"\xfd7zXZ\0", 0, "an xz file"), (b"\x28\xb5\x2f\xfd", 0, "a Zstandard file"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive"), (b"Rar!\x1a\x07", 0, "a RAR archive"),
    (b"\x04\x22\x4d\x18", 0, "an LZ4 file"), (b"ustar", 257, "a tar archive"),
    (b"\x93NUMPY", 0, "a NumPy array"), (b"\x89HDF\r\n\x1a\n", 0, "HDF5"),
    (b"CDF\x01", 0, "netCDF"), (b"CDF\x02", 0, "netCDF"), (b"PAR1", 0, "Parquet"),
    (b"ARROW1", 0, "an Arrow file"),
    (b"SQLite format 3\0", 0, "an SQLite database"), (b"bplist00", 0, "a property list"),
    (b"\0\x05\x16\x07", 0, "a resource fork of macOS (its picture is the file without '._')"),
    (b"\0\x05\x16\0", 0, "a resource fork of macOS"), (b"Lerc2 ", 0, "LERC"),
    (b"version https://git-lfs", 0, "a Git LFS pointer (git lfs pull fetches the picture)"),
    (b"version https://hawser", 0, "a Git LFS pointer (git lfs pull fetches the picture)"),
)
# Brands of ISO media files (MP4, HEIF and their like).
_BRANDS: dict[bytes, str] = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC",
    b"hevx": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"mif2": "HEIF", b"miaf": "HEIF",
    b"jpeg": "HEIF", b"avci": "HEIF", b"vvic": "HEIF", b"j2ki": "HEIF", b"uncf": "HEIF",
    b"crx ": "a camera's raw file (CR3)", b"qt  ": "a QuickTime video",
}
# fmt: on
_CDR = re.compile(rb"\ARIFF....(?:CDR|cdr)", re.DOTALL)
# An <svg> element near the start, after an XML declaration, comments or a doctype.
_SVG = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!--|<!DOCTYPE\s+svg|<svg)", re.IGNORECASE)
_XBM = re.compile(rb"\A\s*(?:/\*.*?\*/\s*)?#define\s+\S*width\s+\d+", re.DOTALL)
_TGA_TYPES = (1, 2, 3, 9, 10, 11)


def unread_kind(data: bytes) -> str | None:
    """The everyday name of a kind that is not read here; None for one that is not known."""
    for magic, offset, name in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    if data[4:8] == b"ftyp" and len(data) >= 12:
        return _BRANDS.get(data[8:12], "an MP4 video")
    if _CDR.match(data):
        return "a CorelDRAW document"
    if _SVG.match(data[:512]) and b"<svg" in data[:65536].lower():
        return "SVG"
    if _XBM.match(data[:4096]):
        return "XBM"
    if data[:1] == b"\x0a" and data[1:2] in b"\0\2\3\4\5" and data[2:3] in b"\0\1":
        return "PCX" if data[3:4] in b"\1\2\4\x08" else None
    if len(data) > 376 and data[0] == data[188] == data[376] == 0x47:
        return "an MPEG video"
    if _is_tga(data):
        return "TGA"
    return "a Windows cursor" if data[:4] == b"\0\0\2\0" and data[4:6] != b"\0\0" else None


def _is_tga(data: bytes) -> bool:
    """Version 2 has a footer; version 1 has no magic number, only a header of plausible values."""
    if data[-18:] == b"TRUEVISION-XFILE.\0":
        return True
    if len(data) < 19 or data[1] > 1 or data[2] not in _TGA_TYPES or data[1] != (data[2] % 8 == 1):
        return False
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (12, 14))
    depth, colours = data[16], int.from_bytes(data[5:7], "little")
    if not (width and height and depth in (8, 15, 16, 24, 32)) or data[17] & 0xC0:
        return False
    if data[1] != (colours > 0) or data[7] not in ((15, 16, 24, 32) if data[1] else (0, 24, 32)):
        return False
    start = 18 + data[0] + colours * ((data[7] + 7) // 8)
    whole = width * height * ((depth + 7) // 8)
    return len(data) > start if data[2] > 8 else len(data) >= start + whole

"""The segments of a JPEG file."""

from __future__ import annotations

from blip2cli.images.jpeg_segments import EOI, Segment, segments


def test_fill_bytes_before_a_marker_are_skipped_in_one_pass() -> None:
    """Two million of them, behind which no marker comes: looking at each run again and again would
    take hours."""
    fill = b"\xff" * 2_000_000
    data = b"\xff\xd8" + fill + b"\0\0" + b"\xff\xff\xfe\0\4ab" + b"\xff\xd9"
    start = data.index(b"ab")
    comment = Segment(0xFE, start, start + 2, start - 4 - 2)
    assert list(segments(data)) == [comment, Segment(EOI, len(data), len(data), 0)]


def test_data_of_a_scan_is_passed_over() -> None:
    data = b"\xff\0\xff\xd0abc\xff\xff\xff\xd9"
    assert [each.marker for each in segments(data, 0, in_scan=True)] == [EOI]
    assert [each.marker for each in segments(b"\xff\xd8\xff\xd9")] == [EOI]

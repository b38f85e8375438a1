"""What libtiff says about damaged files does not reach stderr."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading

import pytest
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images.decode import decode
from blip2cli.system.silence_stderr import silence_stderr
from tests.images.pictures import damaged_tiff


def test_a_damaged_tiff_is_a_failure_and_nothing_is_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = damaged_tiff()
    with Image.open(io.BytesIO(data)) as image, contextlib.suppress(OSError):
        image.load()
    assert capfd.readouterr().err != ""  # left to itself, it speaks
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.error_type == "corrupt"
    assert capfd.readouterr().err == ""
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_the_last_of_several_threads_opens_stderr_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with silence_stderr():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    with silence_stderr():
        os.write(2, b"one ")
    os.write(2, b"two ")
    leave.set()
    thread.join()
    os.write(2, b"three")
    assert capfd.readouterr().err == "three"


def test_a_closed_stderr_stays_closed() -> None:
    code = (
        "import os\n"
        "os.close(2)\n"
        "from blip2cli.system.silence_stderr import silence_stderr\n"
        "with silence_stderr():\n"
        "    pass\n"
        "try:\n"
        "    os.fstat(2)\n"
        "except OSError:\n"
        "    print('closed')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "closed\n"

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from blip2cli.cli.terminal.streams import OneLineJson, Unfailing, show_tracebacks_of_threads


def test_a_file_that_takes_everything(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for file in (Unfailing("/dev/full", "w"), Unfailing(writer, "w")):
        with file, io.TextIOWrapper(file, write_through=True) as stream:  # type: ignore[type-var]
            print("into the void", file=stream, flush=True)
    with Unfailing(tmp_path / "file", "w") as file:
        assert file.write(b"whole") == 5
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_pipe_that_nobody_empties_holds_nothing_up() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with Unfailing(writer, "w") as file:
        assert file.write(bytes(10_000_000)) == 10_000_000
    os.close(reader)


def test_json_on_a_terminal_steers_nothing() -> None:
    row = {"caption": "\x9b2J \u202e \x7f naïve 日本", "n": 1}
    line = json.dumps(row, ensure_ascii=False) + "\n"
    shown = io.BytesIO()
    assert OneLineJson(shown).write(line.encode()) == len(line.encode())
    text = shown.getvalue().decode()
    assert text.endswith('naïve 日本", "n": 1}\n')
    assert json.loads(text) == row
    assert not {"\x9b", "\u202e", "\x7f"} & set(text)


def test_closed_streams_are_opened_before_any_file(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from blip2cli.cli.terminal.streams import open_standard_streams, stdout_is_closed\n"
        "open_standard_streams()\n"
        "file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "os.write(file, f'{file > 2} {stdout_is_closed()}'.encode())\n"
        "print('out'); print('err', file=sys.stderr)\n"
        "os.write(1, b'out'); os.write(2, b'err')\n"
    )
    shell = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    path = tmp_path / "file"
    subprocess.run(["/bin/sh", "-c", shell, sys.executable, code, path], check=True)
    assert path.read_text() == "True True"


def test_no_thread_prints_a_traceback() -> None:
    hooks = threading.excepthook, sys.unraisablehook
    try:
        show_tracebacks_of_threads(False)
        assert threading.excepthook is not threading.__excepthook__
        assert sys.unraisablehook is not sys.__unraisablehook__
        show_tracebacks_of_threads(True)
        assert threading.excepthook is threading.__excepthook__
    finally:
        threading.excepthook, sys.unraisablehook = hooks

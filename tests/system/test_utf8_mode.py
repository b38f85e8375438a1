from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import COMMAND, environment


@pytest.mark.skipif(shutil.which("localedef") is None, reason="no locale can be made here")
def test_names_are_utf_8_in_a_latin_1_locale(tmp_path: Path) -> None:
    locales = tmp_path / "locales"
    locales.mkdir()
    subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", locales / "de_DE"],
        capture_output=True,
        check=False,
    )
    if not (locales / "de_DE").exists():
        pytest.skip("the sources of locales are missing")
    folder = tmp_path / "é"
    folder.mkdir()
    (folder / "ü.png").write_bytes(b"")
    done = subprocess.run(
        [COMMAND, "caption", str(folder), "--model", "tiny", "-o", "o.jsonl"],
        env=environment(tmp_path, LOCPATH=str(locales), LC_ALL="de_DE"),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    listed = (tmp_path / "o.jsonl.errors").read_bytes()
    assert json.loads(listed)["file_name"] == "ü.png"

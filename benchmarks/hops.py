"""Count the functions of this package that one image passes through, from shell to row.

``python benchmarks/hops.py [CHECKOUT]`` captions one image, and then two, with ``tiny`` at batch
size 1 and a profiler in every thread. A hop is a distinct function of the package that is
entered more often for two images than for one: what is entered once a run (command line, loading,
summary) does not count. What is in ``model/`` (layers, decoding of tokens) is listed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType

from checkout import Checkout
from work import draw_images

ROOT = Path(__file__).resolve().parent.parent
NESTED = ("<module>", "<lambda>", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")


def trace(package: Path, out: Path, arguments: Sequence[str]) -> None:
    """Run the command in this process and write how often each function was entered."""
    counts: Counter[CodeType] = Counter()
    prefix = str(package) + os.sep

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(prefix):
            counts[frame.f_code] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        from blip2cli.cli.app import call  # ``main`` ends the process at once

        code = call(list(arguments))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    named: Counter[str] = Counter()
    for function, count in counts.items():
        if function.co_name not in NESTED:
            file = function.co_filename.removeprefix(prefix)
            named[f"{file}:{function.co_qualname}"] += count
    out.write_text(json.dumps(named), encoding="utf-8")
    sys.exit(code)


def entered(checkout: Checkout, images: int, folder: Path) -> Counter[str]:
    """Function, as ``file:name``, to how often it is entered in a run over ``images`` images."""
    work = folder / str(images)
    draw_images(work / "source", images, (80, 60))
    command = ["caption", str(work / "source"), "--model", "tiny", "--batch-size", "1", "-q"]
    script = [str(Path(__file__).resolve()), "--trace", str(work / "counts.json")]
    rows = ["-o", str(work / "out.jsonl")]
    checkout.run([*script, str(checkout.folder), *command, *rows], work)
    return Counter(json.loads((work / "counts.json").read_text(encoding="utf-8")))


def in_model(function: str) -> bool:
    """Whether a function belongs to the model: layers, decoding of tokens, tokenizer."""
    return function.startswith("model/")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the number of hops and their names."""
    parser = argparse.ArgumentParser(description="Count the functions one image passes through.")
    parser.add_argument("checkout", type=Path, nargs="?", default=ROOT, help="by default this one")
    parser.add_argument("--python", type=Path, help="the interpreter, in place of its .venv's")
    options = parser.parse_args(arguments)
    checkout = Checkout.at(options.checkout, options.python)
    with tempfile.TemporaryDirectory() as folder:
        one, two = (entered(checkout, images, Path(folder)) for images in (1, 2))
    hops = sorted(name for name in two if two[name] > one[name])
    outside = [name for name in hops if not in_model(name)]
    print(f"entered in a run over one image: {len(one)} functions")
    print(f"entered again for a second image: {len(hops)}, of them {len(outside)} outside model/")
    for name in outside:
        print(f"  {name}")
    print("in model/:")
    for name in hops:
        if in_model(name):
            print(f"  {name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        trace(Path(sys.argv[3], "blip2cli"), Path(sys.argv[2]), sys.argv[4:])
    else:
        main()

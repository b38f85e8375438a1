from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from blip2cli.pipeline.signals import Interrupted, Interrupts

TERM = signal.SIGTERM


def test_a_signal_outside_a_shield_interrupts_at_once() -> None:
    with Interrupts() as interrupts:
        assert interrupts.exit_code == 0
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), TERM)
        assert (interrupts.signum, interrupts.exit_code) == (TERM, 143)


def test_a_signal_inside_a_shield_waits_for_the_block() -> None:
    with Interrupts() as interrupts:
        with interrupts.shielded():
            os.kill(os.getpid(), TERM)
            finished = True
        assert finished
        assert interrupts.signum == TERM


def test_a_hangup_comes_twice_and_ends_nothing_at_once() -> None:
    with Interrupts() as interrupts:
        with interrupts.shielded():
            os.kill(os.getpid(), signal.SIGHUP)  # the terminal is closed
            os.kill(os.getpid(), signal.SIGHUP)  # and so is its shell
        assert interrupts.exit_code == 129


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.signum is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(TERM)
    with Interrupts():
        assert signal.getsignal(TERM) is not before
    assert signal.getsignal(TERM) is before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    before = signal.getsignal(TERM)
    seen = []

    def work() -> None:
        with Interrupts() as interrupts:
            seen.append((interrupts.signum, signal.getsignal(TERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_the_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from blip2cli.pipeline.signals import Interrupts\n"
        "with Interrupts() as interrupts, interrupts.shielded():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "still here\n", "")
    assert time.monotonic() - began < 30

"""Run a command that must not outlive the process holding our standard input.

usage: guard.py GRACE_SECONDS COMMAND [ARG...]

Standard input is a pipe whose other end the owner keeps open. When it closes (the owner let go, ended, crashed
or was killed), the command's whole process group gets SIGTERM, and SIGKILL after the grace period. The guard ends
only when the group is empty, so waiting for the guard means waiting for all of its processes.
"""

import os
import signal
import subprocess
import sys
import threading
import time


def signal_group(group, number):
    """Signal every process of the group. False if none is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def status_of(child):
    """The command's exit status, as a shell reports it; 1 if it did not end by itself."""
    code = child.poll()
    if code is None:
        return 1
    return code if code >= 0 else 128 - code


def main():
    grace, command = float(sys.argv[1]), sys.argv[2:]
    over = threading.Event()
    # A signal to the guard ends the group too.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())

    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def until_owner_lets_go():
        while os.read(0, 4096):
            pass
        over.set()

    def until_command_ends():
        child.wait()
        over.set()

    for watch in (until_owner_lets_go, until_command_ends):
        threading.Thread(target=watch, daemon=True).start()
    over.wait()

    # Wait for the last process of the group. A zombie that is never reaped (in a container without an init) stays in
    # it for ever, so the wait after SIGKILL is bounded.
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + patience
        left = signal_group(child.pid, number)
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = signal_group(child.pid, 0)
    sys.exit(status_of(child))


main()

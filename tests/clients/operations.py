"""Groups of operations with a client, each compared with what its documentation promises.

A line for each group, `FAILED …` for each operation that answered something else, and at the end
`N operations, M failed`; status 1 where M is not 0. A group that raises has failed once, and the next begins.
"""

import inspect
import os
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))


class Operations:
    def __init__(self):
        self.count, self.failures, self.name = 0, [], ""

    def group(self, name, function, *arguments):
        self.name, before, failed = name, self.count, len(self.failures)
        try:
            function(self, *arguments)
        except Exception as error:
            self.count += 1
            self.fail(f"{type(error).__name__}: {error} (line {line_of(error)})")
        failed = len(self.failures) - failed
        print(f"{name}: {self.count - before} operations" + (f", {failed} failed" if failed else ""), flush=True)

    def equal(self, got, wanted, what=""):
        """`wanted` is a value, or a function that says whether `got` will do."""
        self.count += 1
        if callable(wanted) and not isinstance(wanted, type):
            fine = wanted(got)
        else:
            fine = got == wanted and isinstance(got, bool) == isinstance(wanted, bool)
        if not fine:
            shown = inspect.getsource(wanted).strip() if callable(wanted) else repr(wanted)
            self.fail(f"{what + ': ' if what else ''}{got!r}, not {shown} (line {inspect.stack()[1].lineno})")

    def raises(self, error, function, *arguments, **named):
        """Some refusals matter as much as answers."""
        self.count += 1
        try:
            got = function(*arguments, **named)
        except error:
            return
        self.fail(f"{got!r}, where {error.__name__} was due (line {inspect.stack()[1].lineno})")

    def eventually(self, function, wanted, seconds=3.0):
        """What another connection brings about may take a moment."""
        until = time.monotonic() + seconds
        while (got := function()) != wanted and time.monotonic() < until:
            time.sleep(0.01)
        self.equal(got, wanted, "eventually")

    def fail(self, text):
        self.failures.append(text)
        print(f"FAILED {self.name}: {text}", flush=True)

    def end(self):
        print(f"{self.count} operations, {len(self.failures)} failed", flush=True)
        sys.exit(1 if self.failures else 0)


def line_of(error):
    """The line of ours that called the library, not the library's."""
    ours = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
            if os.path.dirname(os.path.abspath(frame.filename)) == HERE and not frame.filename.endswith("operations.py")]
    return ours[-1] if ours else "?"


def place():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} HOST PORT")
    return sys.argv[1], int(sys.argv[2])

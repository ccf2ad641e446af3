"""The command line, thin: each command is one call of the package. `miniclip COMMAND --help` shows examples."""

import argparse
import errno
import os
import signal
import sys

from .. import __version__, runtime
from ..errors import MiniclipError
from ..runtime import unwritten
from .common import AGAIN
from .coursework import add_coursework
from .encoding import add_encoding
from .finetuning import add_finetuning
from .searching import add_searching
from .series import add_series
from .serving import add_serving
from .training import add_training
from .use import add_use

MEMORY = ("failed to map segment", "cannot allocate memory", "can't allocate memory", "not enough memory", "out of memory")  # what the loader of libraries says, and torch
NO_MEMORY = ("there is not enough memory, on this machine or its card; the series needs 4 GB, larger models and batches more: close other programs, "
             "give less at once, or ask whoever has set a limit")


def build_parser():
    parser = argparse.ArgumentParser(prog="miniclip", description="Learn CLIP by building it: run the series, train, evaluate, search your photos.")
    parser.add_argument("--version", action="version", version=f"miniclip {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (add_series, add_training, add_finetuning, add_use, add_encoding, add_searching, add_serving, add_coursework):
        add(commands)
    return parser


def main(argv=None):
    """Run one command. Exit codes: 0 done, 1 failed, 2 wrong use, 130 stopped with Ctrl-C, 143 told to end (SIGTERM)."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf8", errors="replace")  # names of photos may hold any letter
    args = build_parser().parse_args(argv)
    try:
        return args.call(args) or 0
    except MiniclipError as error:
        print(f"miniclip: {runtime.plain(error, lines=True)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        kept = getattr(args, "stopped", None)
        print(f"\nminiclip: stopped; {kept(args) if kept else AGAIN}", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args and isinstance(stop.args[0], int) else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, ImportError, RuntimeError, OSError) as error:
        words = NO_MEMORY if _lacks_memory(error) else _told_by_system(error) if isinstance(error, OSError) else None
        if not words:
            raise
        print(f"miniclip: {words}", file=sys.stderr)
        return 1


def _lacks_memory(error):
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or any(word in str(error).lower() for word in MEMORY)


def _told_by_system(error):
    """What to say of a disk or a folder that does not let us."""
    place, advice = f"'{error.filename}': " if error.filename else "", (unwritten.ADVICE | unwritten.CLOSED).get(error.errno)
    return f"{place}{error.strerror or error}{f'; {advice}' if advice else ''}"


def _end(number, frame):
    """SIGTERM ends a command as Ctrl-C does: it cleans up, and says what is kept."""
    raise KeyboardInterrupt(number)


def entry():
    """The command `miniclip`: `main`, and the way out. One of several processes that fails leaves at once: torch's threads, with nobody to say goodbye to, abort an orderly end."""
    if runtime.launched()[1] == 1:  # a launcher's processes wait for each other in calls that no handler gets through
        signal.signal(signal.SIGTERM, _end)
    try:
        code = main()
    except SystemExit as done:  # the parser's, after --help or a wrong option: what it printed still has to get out
        code = done.code
    try:
        if sys.stdout:  # none where it is closed
            sys.stdout.flush()
    except OSError as error:  # what was printed has no room where it goes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"miniclip: what it says cannot be written ({error.strerror}); {unwritten.ADVICE.get(error.errno, 'print it elsewhere')}", file=sys.stderr)
            code = code or 1
    if code and runtime.launched()[1] > 1:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

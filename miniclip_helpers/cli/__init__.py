"""The command line, thin: each command is one call of the package. `miniclip COMMAND --help` shows examples."""

import argparse
import os
import sys

from .. import __version__, runtime
from ..errors import MiniclipError
from .coursework import add_coursework
from .encoding import add_encoding
from .finetuning import add_finetuning
from .searching import add_searching
from .series import add_series
from .serving import add_serving
from .training import add_training
from .use import add_use


def build_parser():
    parser = argparse.ArgumentParser(prog="miniclip", description="Learn CLIP by building it: run the series, train, evaluate, search your photos.")
    parser.add_argument("--version", action="version", version=f"miniclip {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (add_series, add_training, add_finetuning, add_use, add_encoding, add_searching, add_serving, add_coursework):
        add(commands)
    return parser


def main(argv=None):
    """Run one command. Exit codes: 0 done, 1 failed, 2 wrong use."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf8", errors="replace")  # names of photos may hold any letter
    args = build_parser().parse_args(argv)
    try:
        return args.call(args) or 0
    except MiniclipError as error:
        print(f"miniclip: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nminiclip: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk or a folder that does not let us
        print(f"miniclip: {error.filename or ''} {error.strerror or error}", file=sys.stderr)
        return 1


def entry():
    """The command `miniclip`: `main`, and the way out. One of several processes that fails leaves at once: torch's threads, with nobody to say goodbye to, abort an orderly end."""
    code = main()
    if code and runtime.launched()[1] > 1:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

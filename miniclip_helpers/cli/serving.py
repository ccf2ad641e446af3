"""The commands that serve: app, serve."""

import os
import pathlib

from ..errors import UsageError
from .common import command

MOST_MB = 1024  # sixteen of them may be in memory at once


def add_serving(commands):
    """The commands that serve: app, serve."""
    page = command(commands, "app", show_page, "open the search of an index as a page in the browser, on this machine alone",
        ["miniclip app photos.index",
         "miniclip app stamps.index --port 9000",
         "miniclip app captions.index --no-browser"])
    page.add_argument("index", metavar="INDEX", type=pathlib.Path)
    page.add_argument("--model", metavar="M", help="the model to encode questions with (default: the one that made the index)")
    page.add_argument("--host", default="127.0.0.1", metavar="HOST", help="where to listen: 127.0.0.1 (default), localhost or ::1; the page is for this machine alone")
    page.add_argument("--port", type=int, default=8866, metavar="P", help="the port (default 8866; 0: any that is free)")
    page.add_argument("--no-browser", action="store_true", help="open no browser; the address is printed")

    serve = command(commands, "serve", serve_index, "serve an index as a web service on this machine: search by words or a picture, zero-shot",
        ["miniclip serve stamps.index",
         "miniclip serve photos.index --port 9000 --log",
         "MINICLIP_TOKEN=secret miniclip serve photos.index --host 0.0.0.0",
         "curl -s http://127.0.0.1:8000/search/text -H 'Content-Type: application/json' -d '{\"query\": \"a red fruit\"}'",
         "curl -s http://127.0.0.1:8000/search/image -F image=@cat.jpg -F k=3",
         "curl -s http://127.0.0.1:8000/zero-shot -F image=@cat.jpg -F labels=cat -F labels=dog"])
    serve.add_argument("index", metavar="INDEX", type=pathlib.Path)
    serve.add_argument("--host", default="127.0.0.1", metavar="HOST", help="where to listen (default 127.0.0.1: this machine alone; 0.0.0.0: every network)")
    serve.add_argument("--port", type=int, default=8000, metavar="P", help="the port (default 8000; 0: any that is free)")
    serve.add_argument("--model", metavar="M", help="the model to encode queries with (default: the one that made the index)")
    serve.add_argument("--token-file", type=pathlib.Path, metavar="FILE", help="a file with the token that clients must send (default: $MINICLIP_TOKEN, or none)")
    serve.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a further name that clients may call the service by; may be given several times")
    serve.add_argument("--max-mb", type=float, default=20, metavar="MB", help="the largest picture that may be sent (default 20)")
    serve.add_argument("--log", action="store_true", help="one line for each request")


def show_page(args):
    """Show an index as a page, until Ctrl-C. args: .index (a folder), .model (a name, None for the index's own), .host, .port and .no_browser.

    Raises what `app.show` raises: a `UsageError` for a host that others reach, a port that is none, or a model that does not fit; a `MiniclipError` for an
    index that is not there or damaged, and where the port is taken or the page cannot be made."""
    from ..app import show

    show(args.index, args.model, args.host, args.port, not args.no_browser)


def serve_index(args):
    """`miniclip serve`: until it is told to stop. `UsageError` for a limit or a token that cannot be."""
    from ..service import serve

    if not 0 < args.max_mb <= MOST_MB:
        raise UsageError(f"--max-mb must be above 0 and at most {MOST_MB}, found {args.max_mb}")
    serve(args.index, args.model, args.host, args.port, token_of(args.token_file), args.allow_host, int(args.max_mb * 2**20), args.log)


def token_of(file):
    """The token out of a file, else of $MINICLIP_TOKEN, else None. Not an option of its own: other users see the options of a process."""
    token = os.environ.get("MINICLIP_TOKEN") or None
    if file is not None:
        try:
            token = file.read_text(encoding="utf8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the token file '{file}' cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if not token:
            raise UsageError(f"the token file '{file}' is empty; write a token into it, like the output of: openssl rand -hex 16")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("a token is made of letters, digits and signs of ASCII, without spaces")
    return token

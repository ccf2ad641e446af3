"""What the commands share: a parser with examples, the common arguments, data and JSON."""

import argparse
import functools
import json
import pathlib
import sys
import warnings

from .. import runtime

AGAIN = "every file is whole, or as it was before; the same command starts again"


def command(commands, name, call, summary, examples, stopped=None):
    """A parser for one command, with its examples under its help. stopped: function of the arguments that says, after Ctrl-C, what is kept and how to go on."""
    examples = "examples:\n" + "\n".join(f"  {line}" for line in examples)
    parser = commands.add_parser(name, help=summary, description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(call=telling(call), stopped=stopped)
    return parser


def telling(call):
    """The command `call`, with the package's own warnings as one line each, without the place in the code that they come from."""
    @functools.wraps(call)
    def run(args):
        with warnings.catch_warnings():
            other = warnings.showwarning

            def show(message, category, *place, **options):
                if category.__module__.split(".")[0] == __name__.split(".")[0]:
                    print(f"miniclip: {runtime.plain(message, lines=True)}", file=sys.stderr)
                else:
                    other(message, category, *place, **options)

            warnings.showwarning = show
            return call(args)

    return run


def run_stopped(args):
    """What is kept of a run of train or fine-tune that was stopped, and how it goes on."""
    if (args.out / "model.safetensors").is_file():
        return f"'{args.out}' holds a finished model"
    if (args.out / "checkpoint.pt").is_file():
        return f"'{args.out}' holds the run up to its last whole epoch; go on with the same command and --resume"
    if (args.out / "run.json").is_file():
        return f"'{args.out}' holds no whole epoch yet; begin it again with the same command and --resume"
    return f"'{args.out}' was not begun, and what was encoded is in the cache, where there is one; the same command starts again"


def words(text):
    """The type of an argument that is text and no path. Bytes that the machine's locale cannot read are read as UTF-8; what that cannot read, either, becomes U+FFFD."""
    try:
        return text.encode("utf8", "surrogateescape").decode("utf8", "replace")
    except UnicodeEncodeError:  # half a letter that stands for no byte, as Windows may hand over
        return runtime.without_halves(text)


def add_data(parser):
    parser.add_argument("--data", required=True, metavar="D", help="emoji, stamps, photos8, cifar100, fashion, or a folder or file of pictures and captions")
    parser.add_argument("--skip-problems", action="store_true", help="leave faulty rows out, and list them, instead of stopping")


def add_captions(parser):
    parser.add_argument("--captions", choices=["all", "first"], default="all", help="all captions of each picture (default), or its first alone")


def add_model(parser):
    parser.add_argument("--model", default="mini", metavar="M",
                        help="mini (default), a folder that train or fine-tune wrote, a CLIP on the hub such as openai/clip-vit-base-patch32, "
                             "clip:ViT-B/32 or open_clip:ARCH/PRETRAINED; after the colon also a file of weights")


def add_parts(parser):
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--val-size", type=float, metavar="F", help="share of the images kept for validation (default 0.1; 0 trains on all)")
    chosen.add_argument("--split", type=pathlib.Path, metavar="FILE", help="JSON with train, val and test lists of image names; test is never looked at")
    parser.add_argument("--resume", action="store_true", help="go on from what RUN holds")


def add_json(parser):
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="write the result here as JSON, too (- prints it)")


def write_json(file, value):
    """Write `value` to `file` as JSON, whole or not at all; print it where that is - or /dev/stdout; nothing when no file was asked for."""
    text = json.dumps(value, indent=1, ensure_ascii=False) if file else ""
    if runtime.has_halves(text):  # a file's name that is no UTF-8: spelt out, so that it can be opened by it
        text = json.dumps(value, indent=1)
    if file and str(file) in ("-", "/dev/stdout"):
        print(text)
    elif file:
        with runtime.writing(file) as path:
            path.write_text(text + "\n", encoding="utf8")
        print(f"written: {file}")


def load_data(data, skip_problems=False, captions="all"):
    from ..datasets import load_dataset

    dataset = load_dataset(data, skip_problems=skip_problems, captions=captions)
    for problem in dataset.problems:
        print(f"left out: {runtime.plain(problem)}", file=sys.stderr)
    return dataset

"""What the commands share: a parser with examples, the common arguments, data and JSON."""

import argparse
import json
import pathlib
import sys


def command(commands, name, call, summary, examples):
    """A parser for one command, with its examples under its help."""
    examples = "examples:\n" + "\n".join(f"  {line}" for line in examples)
    parser = commands.add_parser(name, help=summary, description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(call=call)
    return parser


def add_data(parser):
    parser.add_argument("--data", required=True, metavar="D", help="emoji, stamps, photos8, or a folder or file of pictures and captions")
    parser.add_argument("--skip-problems", action="store_true", help="leave faulty rows out, and list them, instead of stopping")


def add_model(parser):
    parser.add_argument("--model", default="mini", metavar="M",
                        help="mini (default), a folder that train wrote, or a CLIP on the hub such as openai/clip-vit-base-patch32")


def add_json(parser):
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="write the result here as JSON, too")


def write_json(file, value):
    """Write `value` to `file` as JSON, whole or not at all; nothing when no file was asked for."""
    from .. import runtime

    if file:
        with runtime.writing(file) as path:
            path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
        print(f"written: {file}")


def load_data(data, skip_problems=False):
    from ..datasets import load_dataset

    dataset = load_dataset(data, skip_problems=skip_problems)
    for problem in dataset.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return dataset

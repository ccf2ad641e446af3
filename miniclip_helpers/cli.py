"""The command line, thin: each command is one call of the package. `miniclip COMMAND --help` shows examples."""

import argparse
import contextlib
import json
import os
import pathlib
import sys

from . import __version__
from .errors import MiniclipError, UsageError

EXAMPLES = {
    "run": ["miniclip run", "miniclip run 04 --profile smoke", "miniclip run --jobs 2"],
    "train": ["miniclip train --data photos/ --out runs/mine", "miniclip train --data photos/ --split split.json --seed 1 --out runs/mine"],
    "train-mini": ["miniclip train-mini --out build/mini"],
    "evaluate": ["miniclip evaluate --model mini --data photos/",
                 "miniclip evaluate --model runs/mine --data photos/ --split runs/mine/split.json --part test --json scores.json"],
    "zero-shot": ["miniclip zero-shot --labels cat,dog,teapot cat.jpg", "miniclip zero-shot --labels cat,dog --template 'a drawing of a {}' *.png"],
    "index": ["miniclip index photos/ --out photos.index", "miniclip index stamps --out stamps.index"],
    "search": ["miniclip search stamps.index 'a red fruit'", "miniclip search stamps.index --image cat.jpg -k 10", "miniclip search stamps.index"],
    "doctor": ["miniclip doctor"],
    "badges": ["miniclip badges", "miniclip badges --from-git"],
}


def command(commands, name, call, summary):
    """A parser for one command, with its examples under its help."""
    examples = "examples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[name])
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


def build_parser():
    parser = argparse.ArgumentParser(prog="miniclip", description="Learn CLIP by building it: run the series, train, evaluate, search your photos.")
    parser.add_argument("--version", action="version", version=f"miniclip {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (add_series, add_training, add_use):
        add(commands)
    return parser


def add_series(commands):
    """The commands around the series: run, doctor, badges."""
    run = command(commands, "run", run_series, "run the notebooks of the series")
    run.add_argument("names", nargs="*", metavar="NAME", help="notebooks, like 04 or 04_train_from_scratch; all by default")
    run.add_argument("--profile", default="offline", help="offline (default), smoke (seconds, to see that all works) or online (the real CLIP)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at once (default 1)")
    run.add_argument("--update", action="store_true", help="write outputs and figures back into notebooks/ and figures/")
    add_json(command(commands, "doctor", examine, "look this machine over"))
    badges = command(commands, "badges", rewrite_badges, "put the repository's address into badges and setup cells")
    badges.add_argument("--from-git", action="store_true", help="take it from the git remote origin instead of pyproject.toml")


def add_training(commands):
    """The commands that make a model: train, train-mini."""
    train = command(commands, "train", train_model, "train heads on your pictures and captions")
    add_data(train)
    train.add_argument("--out", required=True, metavar="RUN", type=pathlib.Path, help="the folder to write the model to")
    train.add_argument("--image-encoder", metavar="X", help="image tower (default: mini's, locked)")
    train.add_argument("--text-encoder", metavar="Y", help="text tower (default: mini's, locked)")
    train.add_argument("--loss", metavar="L", help="clip, multi-positive, siglip or margin")
    train.add_argument("--epochs", type=int, metavar="N")
    train.add_argument("--seed", type=int, default=0, metavar="S")
    chosen = train.add_mutually_exclusive_group()
    chosen.add_argument("--val-size", type=float, metavar="F", help="share of the images kept for validation (default 0.1; 0 trains on all)")
    chosen.add_argument("--split", type=pathlib.Path, metavar="FILE", help="JSON with train, val and test lists of image names; test is never looked at")
    train.add_argument("--resume", action="store_true", help="go on from what RUN holds")

    mini = command(commands, "train-mini", train_mini, "train the heads of the embedded model anew")
    mini.add_argument("--out", metavar="FOLDER", type=pathlib.Path, help="where to write the model (default: over the embedded one)")
    mini.add_argument("--seed", type=int, default=0)
    add_json(mini)


def add_use(commands):
    """The commands that use one: evaluate, zero-shot, index, search."""
    evaluate = command(commands, "evaluate", evaluate_model, "measure retrieval in both directions, with intervals and chance")
    add_model(evaluate)
    add_data(evaluate)
    subset = evaluate.add_mutually_exclusive_group()
    subset.add_argument("--images-from", type=pathlib.Path, metavar="FILE", help="a text file, one image name a line")
    subset.add_argument("--split", type=pathlib.Path, metavar="FILE", help="JSON with lists of image names; --part says which")
    evaluate.add_argument("--part", metavar="PART", help="the part of the split (default test)")
    add_json(evaluate)
    zero = command(commands, "zero-shot", zero_shot, "name pictures by labels of your own")
    add_model(zero)
    zero.add_argument("--labels", required=True, metavar="a,b,c")
    zero.add_argument("--template", action="append", metavar="T",
                      help="a sentence with {} for the label; may be given several times (default 'a photo of a {}.')")
    zero.add_argument("photos", nargs="+", metavar="PHOTO")
    add_json(zero)

    index = command(commands, "index", index_photos, "make an index of pictures to search")
    index.add_argument("data", metavar="PHOTOS", help="a folder of photos, a file of captions, or emoji, stamps, photos8")
    add_model(index)
    index.add_argument("--out", required=True, metavar="INDEX", type=pathlib.Path)
    index.add_argument("--kind", default="auto", help="flat (exact), hnsw, ivfpq or auto (default: exact until something else is faster)")
    index.add_argument("--skip-problems", action="store_true", help="leave unreadable pictures out, and list them, instead of stopping")

    search = command(commands, "search", search_index, "search an index by words or by a picture; without either, a prompt opens")
    search.add_argument("index", metavar="INDEX", type=pathlib.Path)
    asked = search.add_mutually_exclusive_group()
    asked.add_argument("query", nargs="?", metavar="QUERY", help="what to look for, in words")
    asked.add_argument("--image", metavar="FILE", help="a picture to look for")
    search.add_argument("-k", type=int, default=5, metavar="K", help="how many answers (default 5)")
    search.add_argument("--figure", type=pathlib.Path, metavar="FILE", help="draw the answers into this PNG")
    add_json(search)


def write_json(file, value):
    """Write `value` to `file` as JSON, whole or not at all; nothing when no file was asked for."""
    from . import runtime

    if file:
        with runtime.writing(file) as path:
            path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
        print(f"written: {file}")


def load_data(data, skip_problems=False):
    from .datasets import load_dataset

    dataset = load_dataset(data, skip_problems=skip_problems)
    for problem in dataset.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return dataset


def run_series(args):
    from . import runtime, series

    done = series.run(args.names, args.profile, args.jobs, args.update)
    print(f"\nexecuted notebooks, figures and results: {runtime.build_dir()}")
    return int(any(row["status"] != "ok" for row in done.values()))


def train_model(args):
    from .training import train_run

    dataset = load_data(args.data, args.skip_problems)
    finished = (args.out / "model.safetensors").is_file()  # then train_run has nothing to do, or refuses
    train_run(dataset, args.out, image_encoder=args.image_encoder, text_encoder=args.text_encoder, loss=args.loss, epochs=args.epochs,
              seed=args.seed, val_size=args.val_size, split=args.split, resume=args.resume)
    print(f"{'already finished, nothing was trained' if finished else 'trained'}: {args.out}\nnext:  miniclip evaluate --model {args.out} --data {args.data}")


def train_mini(args):
    from .training.mini import train_mini as train

    report = train(args.out, seed=args.seed)
    print(json.dumps(report, indent=1))
    write_json(args.json, report)


def evaluate_model(args):
    from . import retrieval
    from .pretrained import load_model

    if args.part and not args.split:
        raise UsageError("--part names a part of a split file: give --split FILE too")
    dataset = chosen_part(load_data(args.data, args.skip_problems), args)
    report = retrieval.evaluate(load_model(args.model), dataset)
    print(f"{report['n_images']} images, {report['n_captions']} captions; 95 % intervals in brackets")
    print(retrieval.as_table(report).to_string())
    write_json(args.json, report)


def chosen_part(dataset, args):
    """The images that --images-from or --split and --part name; all of them otherwise."""
    from .datasets import read_names, read_split

    if args.split:
        parts, part = read_split(args.split), args.part or "test"
        if not parts.get(part):
            raise UsageError(f"'{args.split}' names no images under {part!r}; it has {', '.join(f'{p} ({len(n)})' for p, n in parts.items())}")
        return dataset.select(parts[part])
    if args.images_from:
        return dataset.select(read_names(args.images_from))
    return dataset


def zero_shot(args):
    from . import images
    from . import zero_shot as zero
    from .pretrained import load_model

    labels = [label.strip() for label in args.labels.split(",") if label.strip()]
    zero.class_texts(labels, args.template or [zero.TEMPLATE])  # wrong labels are told before anything is loaded
    pictures = [images.open_image(photo) for photo in args.photos]
    probabilities = zero.classify(load_model(args.model), pictures, labels, args.template or [zero.TEMPLATE])
    found = {photo: dict(row) for photo, row in zip(args.photos, zero.top_labels(probabilities, labels))}
    for photo, row in found.items():
        print(photo)
        for label, share in row.items():
            print(f"  {share:6.1%}  {label}")
    write_json(args.json, found)


def index_photos(args):
    from .index import check_kind, check_target
    from .search import index_dataset

    check_kind(args.kind)  # both before anything is encoded
    check_target(args.out)
    index = index_dataset(load_data(args.data, args.skip_problems), args.model, args.kind)
    index.save(args.out)
    print(f"{index!r}: {args.out}\nnext: miniclip search {args.out} \"a red fruit\"")


def search_index(args):
    from . import search
    from .index import load_index
    from .pretrained import load_model

    if args.query is not None and not args.query.strip():
        raise UsageError("the query is empty; say what to look for, like 'a red fruit'")
    index = load_index(args.index)
    model = load_model(index.about.get("model", "mini"))
    search.check_model(index, model)
    if args.image is not None or args.query:
        hits = search.search_image(index, model, args.image, args.k) if args.image is not None else search.search_text(index, model, args.query, args.k)
        answer(index, args.image or args.query, hits, args)
        return
    print(f"{len(index)} pictures. Type what to look for; an empty line ends.")
    with contextlib.suppress(EOFError):  # Ctrl-D, or the end of a pipe
        for line in iter(lambda: input("> ").strip(), ""):
            answer(index, line, search.search_text(index, model, line, args.k), args)


def answer(index, query, hits, args):
    """Print the hits of one query; draw and write them where asked."""
    for place, hit in enumerate(hits, 1):
        print(f"{place:3}. {hit.score:.3f}  {hit.name}")
    write_json(args.json, {"query": query, "hits": [{"name": hit.name, "score": hit.score} for hit in hits]})
    if args.figure:
        from . import plots, runtime, search

        with runtime.writing(args.figure) as path:
            path.write_bytes(plots.to_png(search.draw(index, hits, query), dpi=150))
        print(f"drawn: {args.figure}")


def examine(args):
    from . import series

    checks = series.examine()
    for check in checks:
        print(f"{'ok  ' if check['ok'] else 'LOOK'}  {check['what']}: {check['found']}" + (f"\n      try: {check['try']}" if check["try"] else ""))
    write_json(args.json, checks)
    return int(not all(check["ok"] for check in checks))


def rewrite_badges(args):
    from . import series

    changed = series.rewrite_badges(args.from_git)
    print("\n".join(f"rewritten: {name}" for name in changed) or "every badge is right")


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


if __name__ == "__main__":
    sys.exit(main())

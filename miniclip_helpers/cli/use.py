"""The commands that use a model: evaluate, zero-shot."""

import pathlib

from .. import runtime
from ..errors import UsageError
from .common import add_captions, add_data, add_json, add_model, command, load_data, words, write_json


def add_use(commands):
    """The commands that use one: evaluate, zero-shot."""
    evaluate = command(commands, "evaluate", evaluate_model, "measure retrieval in both directions, with intervals and chance",
        ["miniclip evaluate --model mini --data photos/",
         "miniclip evaluate --model runs/mine --data photos/ --split split.json --part test --json scores.json"])
    add_model(evaluate)
    add_data(evaluate)
    add_captions(evaluate)
    subset = evaluate.add_mutually_exclusive_group()
    subset.add_argument("--images-from", type=pathlib.Path, metavar="FILE", help="a text file, one image name a line")
    subset.add_argument("--split", type=pathlib.Path, metavar="FILE", help="JSON with lists of image names; --part says which")
    evaluate.add_argument("--part", metavar="PART", help="the part of the split (default test)")
    add_json(evaluate)
    zero = command(commands, "zero-shot", zero_shot, "name pictures by labels of your own",
        ["miniclip zero-shot --labels cat,dog,teapot cat.jpg",
         "miniclip zero-shot --labels-from nouns.txt --templates imagenet --top 3 *.jpg",
         "miniclip zero-shot --labels cat,dog --template 'a drawing of a {}' *.png",
         "miniclip zero-shot --yes-no --labels dog,beach --opposite 'a photo of a street.' holiday.jpg"])
    add_model(zero)
    labels = zero.add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", type=words, metavar="a,b,c")
    labels.add_argument("--labels-from", type=pathlib.Path, metavar="FILE", help="a text file, one label a line, or a JSON list")
    sentences = zero.add_mutually_exclusive_group()
    sentences.add_argument("--template", action="append", type=words, metavar="T",
                           help="a sentence with {} for the label; may be given several times (default 'a photo of a {}.')")
    sentences.add_argument("--templates", choices=("one", "seven", "imagenet"), help="a set of templates: the default one, seven, or the 80 of CLIP's paper")
    zero.add_argument("--temperature", type=float, metavar="T", help="of the softmax (default: the model's own); lower is more sure, the order stays")
    zero.add_argument("--top", type=int, default=5, metavar="K", help="how many labels to tell for each photo (default 5)")
    zero.add_argument("--yes-no", action="store_true", help="ask of each label by itself whether the photo shows it")
    zero.add_argument("--opposite", action="append", type=words, metavar="SENTENCE", help="what no means under --yes-no; may be given several times")
    zero.add_argument("photos", nargs="+", metavar="PHOTO")
    add_json(zero)


def evaluate_model(args):
    from .. import retrieval
    from ..pretrained import load_model

    if args.part and not args.split:
        raise UsageError("--part names a part of a split file: give --split FILE too")
    dataset = chosen_part(load_data(args.data, args.skip_problems, args.captions), args)
    model = load_model(args.model)
    report = retrieval.evaluate(model, dataset)
    print(f"{report['n_images']} images, {report['n_captions']} captions; 95 % intervals in brackets")
    print(retrieval.as_table(report).to_string())
    labels = dataset.columns.get("label", [])
    if all(labels) and 1 < len(set(labels)) <= len(labels) / 4:  # then most captions have many right pictures, and R@1 says little
        report["zero_shot"] = label_report(model, dataset)
    write_json(args.json, report)


def label_report(model, dataset):
    """How often the right label comes first, where pictures share labels; printed, and returned without the single labels."""
    from .. import zero_shot as zero

    labels, targets = zero.labels_of(dataset)
    found = zero.evaluate_labels(model, dataset, labels, targets, zero.TEMPLATES)
    low, high = found["interval95"]["top-1"]
    print(f"pictures share {len(labels)} labels: top-1 {found['top-1']:.1%} [{low:.1%}, {high:.1%}], top-5 {found['top-5']:.1%}, chance {found['chance']['top-1']:.1%}")
    return {key: value for key, value in found.items() if key != "per_class"}


def chosen_part(dataset, args):
    """The images that --images-from or --split and --part name; all of them otherwise."""
    from ..datasets import read_names, read_split

    if args.split:
        parts, part = read_split(args.split), args.part or "test"
        if not parts.get(part):
            raise UsageError(f"'{args.split}' names no images under {part!r}; it has {', '.join(f'{p} ({len(n)})' for p, n in parts.items())}")
        return dataset.select(parts[part])
    if args.images_from:
        return dataset.select(read_names(args.images_from))
    return dataset


def zero_shot(args):
    from .. import images
    from .. import zero_shot as zero
    from ..pretrained import load_model

    labels = zero.read_labels(args.labels_from) if args.labels_from else [label.strip() for label in args.labels.split(",") if label.strip()]
    sets = {"seven": lambda: zero.TEMPLATES, "imagenet": zero.imagenet_templates}
    templates = args.template or sets.get(args.templates, lambda: [zero.TEMPLATE])()
    texts = zero.class_texts(labels, templates)  # what cannot work is told before anything is loaded
    check_question(args, labels)
    pictures = [images.open_image(photo) for photo in args.photos]
    model = load_model(args.model)
    if args.yes_no:
        shares = zero.yes_no(model, pictures, texts, args.opposite or zero.OPPOSITES, args.temperature)
    else:
        shares = zero.classify(model, pictures, labels, templates, args.temperature)
    found = [dict(row) for row in zero.top_labels(shares, labels, args.top)]
    for photo, row in zip(args.photos, found):
        print(runtime.plain(photo))
        for label, share in row.items():
            print(f"  {share:6.1%}  {runtime.plain(label)}")
    write_json(args.json, dict(zip(args.photos, found)))


def check_question(args, labels):
    """Raise a `UsageError` for options of zero-shot that do not go together."""
    from .. import zero_shot as zero

    if args.opposite and not args.yes_no:
        raise UsageError("--opposite says what no means: give --yes-no too, or leave it out and name the opposite as a label")
    if not args.yes_no:
        zero.check_several(labels)
    if args.top < 1:
        raise UsageError(f"--top must be at least 1, found {args.top}")
    zero.scale_of(None, 1.0 if args.temperature is None else args.temperature)

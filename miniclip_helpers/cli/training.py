"""The commands that make a model: train, train-mini."""

import json
import pathlib

from .common import add_data, add_json, command, load_data, write_json


def add_training(commands):
    """The commands that make a model: train, train-mini."""
    train = command(commands, "train", train_model, "train heads on your pictures and captions",
        ["miniclip train --data photos/ --out runs/mine",
         "miniclip train --data photos/ --split split.json --seed 1 --out runs/mine"])
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

    mini = command(commands, "train-mini", train_mini, "train the heads of the embedded model anew",
        ["miniclip train-mini --out build/mini"])
    mini.add_argument("--out", metavar="FOLDER", type=pathlib.Path, help="where to write the model (default: over the embedded one)")
    mini.add_argument("--seed", type=int, default=0)
    add_json(mini)


def train_model(args):
    from ..training import train_run

    dataset = load_data(args.data, args.skip_problems)
    finished = (args.out / "model.safetensors").is_file()  # then train_run has nothing to do, or refuses
    train_run(dataset, args.out, image_encoder=args.image_encoder, text_encoder=args.text_encoder, loss=args.loss, epochs=args.epochs,
              seed=args.seed, val_size=args.val_size, split=args.split, resume=args.resume)
    print(f"{'already finished, nothing was trained' if finished else 'trained'}: {args.out}\nnext:  miniclip evaluate --model {args.out} --data {args.data}")


def train_mini(args):
    from ..training.mini import train_mini as train

    report = train(args.out, seed=args.seed)
    print(json.dumps(report, indent=1))
    write_json(args.json, report)

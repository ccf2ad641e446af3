"""The commands that make a model: train, train-mini."""

import argparse
import json
import pathlib

from .common import add_data, add_json, add_parts, command, load_data, write_json


def add_training(commands):
    """The commands that make a model: train, train-mini."""
    train = command(commands, "train", train_model, "train on your pictures and captions",
        ["miniclip train --data photos/ --out runs/mine",
         "miniclip train --data photos/ --split split.json --seed 1 --out runs/mine",
         "miniclip train --data photos/ --preset 001 --text-encoder transformer --out runs/001",
         "miniclip train --data photos/ --image-encoder resnet18 --text-encoder bert --pretrained --unlock --out runs/unlocked"])
    add_data(train)
    train.add_argument("--out", required=True, metavar="RUN", type=pathlib.Path, help="the folder to write the model to")
    train.add_argument("--preset", metavar="P", help="a published recipe: 000, 001 or 004; every other flag comes before it")
    _add_towers(train)
    _add_steps(train)
    train.add_argument("--captions", metavar="all|first", help="of each image, all captions (default) or the first alone")
    add_parts(train)

    mini = command(commands, "train-mini", train_mini, "train the heads of the embedded model anew",
        ["miniclip train-mini --out build/mini"])
    mini.add_argument("--out", metavar="FOLDER", type=pathlib.Path, help="where to write the model (default: over the embedded one)")
    mini.add_argument("--seed", type=int, default=0)
    add_json(mini)


def _add_towers(train):
    train.add_argument("--image-encoder", metavar="X", help="efficientnet-lite0, resnet18, resnet50, mobilenetv2, vit or small-cnn (default: mini's, locked)")
    train.add_argument("--text-encoder", metavar="Y", help="minilm, bert, gpt2, bilstm, transformer or bag-of-words (default: mini's, locked)")
    train.add_argument("--pretrained", action=argparse.BooleanOptionalAction, default=None,
                       help="published weights, or none of them (default: those that are on this machine; the rest starts from zero)")
    train.add_argument("--unlock", action=argparse.BooleanOptionalAction, default=None, help="train published weights, too (default: locked, or as the preset says)")
    train.add_argument("--size", type=int, metavar="PIXELS", help="side of the pictures that the image tower sees")
    train.add_argument("--dim", type=int, metavar="D", help="dimensions of the shared space")


def _add_steps(train):
    train.add_argument("--loss", metavar="L", help="clip, multi-positive, siglip or margin")
    train.add_argument("--epochs", type=int, metavar="N")
    train.add_argument("--batch-size", type=int, metavar="B")
    train.add_argument("--learning-rate", type=float, metavar="R")
    train.add_argument("--patience", type=int, metavar="N", help="epochs without a better validation before it stops (0: never)")
    train.add_argument("--seed", type=int, default=0, metavar="S")


def train_model(args):
    from ..training import train_run

    dataset = load_data(args.data, args.skip_problems)
    finished = (args.out / "model.safetensors").is_file()  # then train_run has nothing to do, or refuses
    names = ("image_encoder", "text_encoder", "loss", "epochs", "seed", "val_size", "split", "resume", "preset", "unlock", "pretrained", "size", "dim",
             "batch_size", "learning_rate", "patience", "captions")
    train_run(dataset, args.out, **{name: getattr(args, name) for name in names})
    towers = json.loads((args.out / "config.json").read_text(encoding="utf8")).get("training", {}).get("towers", {})
    for side, said in towers.items():
        print(f"{side} tower  {said}")
    print(f"{'already finished, nothing was trained' if finished else 'trained'}: {args.out}\nnext:  miniclip evaluate --model {args.out} --data {args.data}")


def train_mini(args):
    from ..training.mini import train_mini as train

    report = train(args.out, seed=args.seed)
    print(json.dumps(report, indent=1))
    write_json(args.json, report)

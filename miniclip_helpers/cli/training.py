"""The commands that make a model: train, train-mini."""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import warnings

from ..errors import MiniclipError
from .common import add_data, add_json, add_parts, command, load_data, run_stopped, write_json


def add_training(commands):
    """The commands that make a model: train, train-mini."""
    train = command(commands, "train", train_model, "train on your pictures and captions",
        ["miniclip train --data photos/ --out runs/mine",
         "miniclip train --data photos/ --split split.json --seed 1 --out runs/mine",
         "miniclip train --data photos/ --preset 001 --text-encoder transformer --out runs/001",
         "miniclip train --data photos/ --image-encoder resnet18 --text-encoder bert --pretrained --unlock --out runs/unlocked",
         "torchrun --nproc-per-node 2 -m miniclip_helpers.cli train --data photos/ --preset 001 --precision bf16 --out runs/two-cards",
         "accelerate launch --multi_gpu --num_processes 2 -m miniclip_helpers.cli train --data photos/ --preset 001 --out runs/two-cards"], run_stopped)
    add_data(train)
    train.add_argument("--out", required=True, metavar="RUN", type=pathlib.Path, help="the folder to write the model to")
    train.add_argument("--preset", metavar="P", help="a published recipe: 000, 001 or 004; every other flag comes before it")
    _add_towers(train)
    _add_steps(train)
    train.add_argument("--captions", metavar="all|first", help="of each image, all captions (default) or the first alone")
    add_parts(train)
    _add_machine(train)

    mini = command(commands, "train-mini", train_mini, "train the heads of the embedded model anew",
        ["miniclip train-mini --out build/mini"])
    mini.add_argument("--out", metavar="FOLDER", type=pathlib.Path, help="where to write the model (default: over the embedded one)")
    mini.add_argument("--seed", type=int, default=0)
    add_json(mini)


def _add_towers(train):
    train.add_argument("--image-encoder", metavar="X", help="efficientnet-lite-trio, efficientnet-lite0, resnet18, resnet50, mobilenetv2, vit or small-cnn "
                       "(default: efficientnet-lite-trio, locked)")
    train.add_argument("--text-encoder", metavar="Y", help="minilm, bert, gpt2, bilstm, transformer or bag-of-words (default: mini's, locked)")
    train.add_argument("--pretrained", action=argparse.BooleanOptionalAction, default=None,
                       help="published weights, or none of them (default: those that are on this machine; the rest starts from zero)")
    train.add_argument("--unlock", action=argparse.BooleanOptionalAction, default=None, help="train published weights, too (default: locked, or as the preset says)")
    train.add_argument("--size", type=int, metavar="PIXELS", help="side of the pictures that the image tower sees")
    train.add_argument("--dim", type=int, metavar="D", help="dimensions of the shared space")
    train.add_argument("--refit", action=argparse.BooleanOptionalAction, default=True,
                       help="once validation has chosen them, fit the heads of locked towers on its images, too (default: yes)")


def _add_steps(train):
    train.add_argument("--loss", metavar="L", help="clip, multi-positive, multi-view, siglip or margin")
    train.add_argument("--epochs", type=int, metavar="N")
    train.add_argument("--batch-size", type=int, metavar="B")
    train.add_argument("--learning-rate", type=float, metavar="R")
    train.add_argument("--patience", type=int, metavar="N", help="epochs without a better validation before it stops (0: never)")
    train.add_argument("--seed", type=int, default=0, metavar="S")


def _add_machine(train):
    where = train.add_argument_group("where gradient steps are computed", "under torchrun or accelerate launch the processes share each batch, and train as one would")
    where.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="a CUDA card where there is one (default), or as you say")
    where.add_argument("--precision", default="fp32", metavar="fp32|bf16", help="of the towers' and heads' forward pass; bf16 is for cards, most processors are slower with it")
    where.add_argument("--compile", action="store_true", help="through torch.compile: a minute of waiting, then faster steps")
    where.add_argument("--chunk", type=int, default=0, metavar="N", help="hold the activations of N pairs at once, for large batches; a third more time")


def train_model(args):
    """Train; of several processes, process 0 alone speaks."""
    from .. import runtime
    from ..training import Machine

    machine = functools.partial(Machine, args.device, args.precision, args.compile, args.chunk)
    if runtime.launched()[0] == 0:
        return _train_model(args, machine())
    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _train_model(args, machine())
        except MiniclipError as error:
            if getattr(error, "said_by_first", False):
                return error.exit_code
            raise


def _train_model(args, machine):
    from ..training import train_run

    finished = (args.out / "model.safetensors").is_file()  # then train_run has nothing to do, or refuses
    names = ("image_encoder", "text_encoder", "loss", "epochs", "seed", "val_size", "split", "resume", "preset", "unlock", "pretrained", "size", "dim",
             "batch_size", "learning_rate", "patience", "captions", "refit")
    train_run(lambda: load_data(args.data, args.skip_problems), args.out, machine=machine, **{name: getattr(args, name) for name in names})
    if not machine.first:
        return
    about = json.loads((args.out / "config.json").read_text(encoding="utf8")).get("training", {})
    for side, said in about.get("towers", {}).items():
        print(f"{side} tower  {said}")
    if "val" in about.get("fitted_on", ()):
        print("validation    chose the settings and was then fitted on, too: measure on other images (or train with --no-refit)")
    print(f"{'already finished, nothing was trained' if finished else 'trained'}: {args.out}\nnext:  miniclip evaluate --model {args.out} --data {args.data}"
          + (f" --split {args.out}/split.json" if args.split else ""))


def train_mini(args):
    from ..training.mini import train_mini as train

    report = train(args.out, seed=args.seed)
    print(json.dumps(report, indent=1))
    write_json(args.json, report)

"""The commands that make a model out of a model: fine-tune, export."""

import pathlib

from .common import add_captions, add_data, add_parts, command, load_data, run_stopped


def add_finetuning(commands):
    """The commands fine-tune and export."""
    tune = command(commands, "fine-tune", fine_tune_model, "adapt a pretrained model to your pictures and captions",
        ["miniclip fine-tune --data photos/ --method heads --out runs/mine",
         "miniclip fine-tune --data photos/ --method lora --side text --targets query,value --rank 8 --out runs/lora",
         "miniclip fine-tune --model openai/clip-vit-base-patch32 --data photos/ --split split.json --method full --wise-ft 0.5 --out runs/clip"], run_stopped)
    tune.add_argument("--model", default="mini", metavar="M", help="mini (default), a folder that train or fine-tune wrote, or a CLIP of the hub, by name or as a folder")
    add_data(tune)
    add_captions(tune)
    tune.add_argument("--method", default="heads", metavar="METHOD", help="heads (default), lp-ft (heads, then all), lora or full")
    tune.add_argument("--out", required=True, metavar="RUN", type=pathlib.Path, help="the folder to write the model to")
    tune.add_argument("--side", default="both", metavar="SIDE", help="which side learns: image, text or both (default)")
    tune.add_argument("--loss", metavar="L", help="clip (default), multi-positive, multi-view, siglip or margin")
    tune.add_argument("--margin", type=float, metavar="F", help="what --loss margin asks for, in cosine (default 0.2)")
    tune.add_argument("--epochs", type=int, metavar="N")
    tune.add_argument("--learning-rate", type=float, metavar="F", help="the peak, after a climb over a tenth of the steps")
    tune.add_argument("--batch-size", type=int, metavar="N")
    tune.add_argument("--patience", type=int, metavar="N", help="epochs without a better validation before it stops; 0 for never")
    tune.add_argument("--rank", type=int, default=4, metavar="N", help="of LoRA's updates (default 4)")
    tune.add_argument("--targets", metavar="a,b", help="the layers that LoRA goes on, by the end of their names (default: every linear layer)")
    tune.add_argument("--wise-ft", type=float, metavar="ALPHA", help="write the model between before (0) and after (1)")
    tune.add_argument("--seed", type=int, default=0, metavar="S")
    add_parts(tune)
    export = command(commands, "export", export_run, "write a model in the hub's format, for transformers",
        ["miniclip export runs/mine --to hub/mine",
         "miniclip export mini --to hub/mini"])
    export.add_argument("run", metavar="RUN", help="a folder that train or fine-tune wrote, mini, or a CLIP of the hub")
    export.add_argument("--to", required=True, metavar="FOLDER", type=pathlib.Path, help="the folder to write, new or of an earlier export")


def fine_tune_model(args):
    from ..finetuning import about_run, fine_tune_run

    dataset = load_data(args.data, args.skip_problems, args.captions)
    finished = (args.out / "model.safetensors").is_file()  # then there is nothing to do, or it is refused
    targets = [target.strip() for target in args.targets.split(",") if target.strip()] if args.targets else None
    fine_tune_run(args.model, dataset, args.out, args.method, sides=args.side, loss=args.loss, margin=args.margin, epochs=args.epochs,
                  learning_rate=args.learning_rate, batch_size=args.batch_size, patience=args.patience, rank=args.rank, targets=targets, seed=args.seed,
                  val_size=args.val_size, split=args.split, wise_ft=args.wise_ft, resume=args.resume)
    print(f"{'already finished, nothing was trained' if finished else 'fine-tuned'}: {args.out}")
    about = about_run(args.out)
    if about.get("after"):
        told = [f"{way.replace('_', ' ')} R@1 {about['before'][f'val_{way}_R@1']:.1%} -> {about['after'][f'val_{way}_R@1']:.1%}" for way in ("image_to_text", "text_to_image")]
        print(f"on {about['val']} images for validation: {', '.join(told)}" + ("; no epoch was better than the model as it came" if about["kept"] == "start" else ""))
    print(f"next:  miniclip evaluate --model {args.out} --data {args.data}" + (f" --split {args.out}/split.json" if args.split else ""))


def export_run(args):
    from ..finetuning import export_model

    how = export_model(args.run, args.to)
    trust = ", trust_remote_code=True" if "trust" in how else ""
    print(f"written: {args.to}\nload it:  transformers.AutoModel.from_pretrained('{args.to}'{trust})")
    if trust:
        print("transformers has no class for these towers: it runs the three short .py files of the folder, which need timm; README.md says more")

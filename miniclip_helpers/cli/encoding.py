"""The command that encodes a corpus: encode."""

import pathlib
import sys

from .. import runtime
from .common import add_data, add_json, add_model, command, write_json


def add_encoding(commands):
    """The command that encodes a corpus: encode."""
    encode = command(commands, "encode", encode_data, "encode pictures or captions of any number into parquet shards of vectors",
        ["miniclip encode --data photos/ --out shards/",
         "miniclip encode --data 'tars/' --out shards/ --processes 2 --skip-problems",
         "miniclip encode --data photos.parquet --of captions --out caption-shards/",
         "torchrun --nproc-per-node 2 -m miniclip_helpers.cli encode --data tars/ --out shards/"],
        lambda args: f"finished shards are kept in '{args.out}'; the same command goes on")
    add_data(encode)
    encode.add_argument("--out", required=True, metavar="SHARDS", type=pathlib.Path, help="the folder to write to; finished shards in it are kept")
    add_model(encode)
    encode.add_argument("--of", choices=("pictures", "captions"), default="pictures", help="what to encode (default: the pictures)")
    encode.add_argument("--processes", type=int, default=1, metavar="N", help="fresh processes that share the work (default 1, which uses all cores, too)")
    encode.add_argument("--rows-per-shard", type=int, default=1000, metavar="R", help="pictures per shard (default 1000); a tar shard becomes one")
    encode.add_argument("--compile", action="store_true", default=None, help="compile the image tower first: minutes that pay from some ten thousand pictures on")
    encode.add_argument("--device", metavar="cuda|auto", help="run the image tower there (default: the CPU)")
    add_json(encode)


def encode_data(args):
    from .. import embedding

    done = embedding.encode_corpus(args.data, args.out, args.model, args.processes, args.rows_per_shard, args.of, args.skip_problems, args.compile, args.device)
    for problem in done["left_out"]:
        print(f"left out: {runtime.plain(problem)}", file=sys.stderr)
    print(f"{done['rows']:,} vectors in {done['shards']:,} shards ({done['kept']:,} of them from before): {args.out}\n"
          f"next: miniclip index {args.out} --out {args.out.with_suffix('.index')}")
    write_json(args.json, done)

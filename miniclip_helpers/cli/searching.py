"""The commands that search: index, search."""

import contextlib
import pathlib
import sys

from .. import runtime
from ..errors import UsageError
from .common import add_json, add_model, command, load_data, words, write_json


def add_searching(commands):
    """The commands that search: index, search."""
    index = command(commands, "index", make_index, "make an index of pictures, or of captions, to search",
        ["miniclip index photos/ --out photos.index",
         "miniclip index photos/ --of captions --out captions.index",
         "miniclip index sentences.txt --out sentences.index",
         "miniclip index shards/ --out photos.index",
         "miniclip index stamps --limit 500 --out stamps.index"],
        lambda args: f"'{args.out}' is as it was, and what was encoded is in the cache, where there is one; the same command goes on")
    index.add_argument("data", metavar="PHOTOS|CAPTIONS",
                       help="a folder of photos, a file of captions, or emoji, stamps, photos8; a text file with one caption a line; or what miniclip encode wrote")
    add_model(index)
    index.add_argument("--out", required=True, metavar="INDEX", type=pathlib.Path)
    index.add_argument("--of", choices=("pictures", "captions"), help="what to index (default: the pictures; the captions where the data are a text file without pictures)")
    index.add_argument("--limit", type=int, metavar="N", help="index the first N pictures or captions alone")
    index.add_argument("--kind", default="auto", help="flat (exact), hnsw, ivfpq or auto (default: exact until something else is faster)")
    index.add_argument("--skip-problems", action="store_true", help="leave unreadable pictures out, and list them, instead of stopping")

    search = command(commands, "search", search_index, "search an index by words or by a picture; without either, a prompt opens",
        ["miniclip search stamps.index 'a red fruit'",
         "miniclip search stamps.index --image cat.jpg -k 10",
         "miniclip search captions.index --image cat.jpg --limit 500 --figure answer.png",
         "miniclip search stamps.index --queries questions.txt --json answers.json",
         "miniclip search stamps.index"])
    search.add_argument("index", metavar="INDEX", type=pathlib.Path)
    asked = search.add_mutually_exclusive_group()
    asked.add_argument("query", nargs="?", type=words, metavar="QUERY", help="what to look for, in words")
    asked.add_argument("--image", metavar="FILE", help="a picture to look for")
    asked.add_argument("--queries", type=pathlib.Path, metavar="FILE", help="a text file, one query a line, all answered together")
    search.add_argument("-k", type=int, default=5, metavar="K", help="how many answers (default 5)")
    search.add_argument("--limit", type=int, metavar="N", help="search among the first N of the index alone, exactly (default: all)")
    search.add_argument("--model", metavar="M", help="the model to encode the query with (default: the one that made the index)")
    search.add_argument("--figure", type=pathlib.Path, metavar="FILE", help="draw the answers into this PNG")
    add_json(search)


def make_index(args):
    from .. import embedding, search
    from ..index import check_kind, check_target

    check_kind(args.kind)  # all of these before anything is encoded
    check_limit(args.limit)
    check_target(args.out)
    if embedding.shard_files(args.data):
        return index_encoded(args)
    sentences = search.holds_sentences(args.data)
    if sentences and args.of == "pictures":
        raise UsageError(f"'{args.data}' holds captions without pictures; index them with --of captions")
    data = args.data if sentences else load_data(args.data, args.skip_problems)
    captions = sentences or args.of == "captions"
    index = (search.index_captions if captions else search.index_dataset)(data, args.model, args.kind, args.limit)
    return save_index(index, args.out, captions)


def index_encoded(args):
    """One index of the shards that `miniclip encode` wrote: the vectors are there, and no model is needed."""
    from .. import search

    index = search.index_shards(args.data, args.kind, args.limit)
    if args.of not in (None, index.about["holds"]):
        raise UsageError(f"'{args.data}' holds vectors of {index.about['holds']}, not of {args.of}; leave --of out, or encode them with: miniclip encode --of {args.of}")
    return save_index(index, args.out, index.about["holds"] == "captions")


def save_index(index, out, captions):
    index.save(out)
    print(f"{index!r}, {'captions' if captions else 'pictures'}: {out}\nnext: miniclip search {out} " + ("--image PHOTO" if captions else '"a red fruit"'))


def check_limit(limit):
    """Raise a `UsageError` for a limit below 1."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, found {limit}")


def search_index(args):
    from .. import search
    from ..index import load_index

    if args.query is not None and not args.query.strip():
        raise UsageError("the query is empty; say what to look for, like 'a red fruit'")
    if args.k < 1:
        raise UsageError(f"-k must be at least 1, found {args.k}")
    check_limit(args.limit)
    queries = search.read_queries(args.queries) if args.queries else None
    index = load_index(args.index)
    if queries and args.figure:
        search.check_sheet(index, queries)
    model = search.model_of(index, args.model)
    search.check_model(index, model)
    index = index if args.limit is None else index.first(args.limit)
    if queries:
        answer_all(index, model, queries, args)
    elif args.query or args.image is not None:
        answer(index, model, args)
    else:
        prompt(index, model, args)


def prompt(index, model, args):
    """Ask for queries until an empty line."""
    print(f"{len(index)} {index.about.get('holds', 'pictures')}. Type what to look for; an empty line ends.")
    with contextlib.suppress(EOFError):  # Ctrl-D, or the end of a pipe
        for line in iter(lambda: input("> ").strip(), ""):
            args.query = line
            answer(index, model, args)


def answer(index, model, args):
    """Print the hits of one query, words or a picture; draw and write them where asked."""
    from .. import images, search

    picture = None if args.image is None else images.open_image(args.image)
    hits = search.search_text(index, model, args.query, args.k) if picture is None else search.search_image(index, model, picture, args.k)
    print_hits(index, hits)
    write_json(args.json, as_json(index, args.query if picture is None else args.image, hits))
    if args.figure:
        save_figure(args.figure, search.draw(index, hits, args.query or "", picture))
        tell_gone(index, hits)


def answer_all(index, model, queries, args):
    """The same for many queries: encoded together, one list in JSON, one row each in the figure."""
    from .. import search

    found = search.search_many(index, model, queries, args.k)
    for query, hits in zip(queries, found):
        print(runtime.plain(query))
        print_hits(index, hits)
    write_json(args.json, [as_json(index, query, hits) for query, hits in zip(queries, found)])
    if args.figure:
        save_figure(args.figure, search.draw_many(index, queries, found))
        tell_gone(index, [hit for hits in found for hit in hits])


def print_hits(index, hits):
    from .. import search

    for place, hit in enumerate(hits, 1):
        caption = search.text_of(index, hit.name)
        print(f"{place:3}. {hit.score:.3f}  {runtime.plain(hit.name)}" + (f"  {runtime.plain(caption)}" if caption else ""))


def as_json(index, query, hits):
    """One query and its hits as plain JSON; captions with their text."""
    from .. import search

    rows = [{"name": hit.name, "score": hit.score, "caption": search.text_of(index, hit.name)} for hit in hits]
    return {"query": query, "hits": [{key: value for key, value in row.items() if value is not None} for row in rows]}


def tell_gone(index, hits):
    """Name the pictures that could not be drawn."""
    from .. import search

    for name in [] if search.holds_captions(index) else dict.fromkeys(search.gone(index, hits)):
        print(f"miniclip: {runtime.plain(name)} is gone since the index was made; the figure has a grey square for it", file=sys.stderr)


def save_figure(file, figure):
    from .. import plots, runtime

    with runtime.writing(file) as path:
        path.write_bytes(plots.to_png(figure, dpi=150))
    print(f"drawn: {file}")

"""The commands around the series: run, figures, doctor, badges."""

from .common import add_json, command, write_json


def add_series(commands):
    """The commands around the series: run, figures, doctor, badges."""
    run = command(commands, "run", run_series, "run the notebooks of the series",
        ["miniclip run",
         "miniclip run 04 --profile smoke",
         "miniclip run --jobs 2"],
        lambda args: "notebooks that had ended are whole, and so is every figure; name the others to run them alone, or run the same command again")
    run.add_argument("names", nargs="*", metavar="NAME", help="notebooks, like 04 or 04_train_from_scratch; all by default")
    run.add_argument("--profile", default="offline", help="offline (default), smoke (seconds, to see that all works) or online (the real CLIP)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at once (default 1)")
    run.add_argument("--update", action="store_true", help="write outputs and figures back into notebooks/ and figures/")
    figures = command(commands, "figures", do_figures, "draw the figures of the series again, or check them",
        ["miniclip figures",
         "miniclip figures 01 02 --check",
         "miniclip figures --check --exact --drawn build/offline/figures"])
    figures.add_argument("names", nargs="*", metavar="NAME", help="notebooks, like 04; all by default")
    figures.add_argument("--check", action="store_true", help="write nothing; compare numbers, size and ink with the committed figures")
    figures.add_argument("--drawn", metavar="FOLDER", help="with --check: figures that an earlier miniclip run has drawn, instead of running the notebooks now")
    figures.add_argument("--tolerance", type=float, metavar="F", help="with --check: how far a number may move, as a share of the largest beside it (default 0.05)")
    figures.add_argument("--exact", action="store_true", help="with --check: ask for the same bytes, too, as two runs on one machine give them")
    figures.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at once (default 1)")
    add_json(figures)
    add_json(command(commands, "doctor", examine, "look this machine over",
        ["miniclip doctor"]))
    badges = command(commands, "badges", rewrite_badges, "put the repository's address into badges and setup cells",
        ["miniclip badges",
         "miniclip badges --from-git"])
    badges.add_argument("--from-git", action="store_true", help="take it from the git remote origin instead of pyproject.toml")


def run_series(args):
    from .. import runtime, series

    done = series.run(args.names, args.profile, args.jobs, args.update)
    print(f"\nexecuted notebooks, figures and results: {runtime.build_dir()}")
    return int(any(row["status"] != "ok" for row in done.values()))


def do_figures(args):
    from ..errors import UsageError

    if args.check:
        return compare_figures(args)
    if args.drawn or args.exact or args.tolerance is not None:
        raise UsageError("--drawn, --exact and --tolerance go with --check; without it the figures are drawn again")
    return redraw_figures(args)


def redraw_figures(args):
    import collections

    from .. import runtime, series

    done, figures = series.draw_figures(args.names, args.jobs)
    for name, became in figures.items():
        if became != "as before":
            print(f"{became}: {name}")
    counts = collections.Counter(figures.values())
    print(f"{len(figures)} figures in {runtime.CHECKOUT / 'figures'}: {', '.join(f'{count} {became}' for became, count in counts.items())}; "
          f"{sum(row['seconds'] for row in done.values()):.0f} s of notebooks")
    write_json(args.json, {"notebooks": {name: {key: row[key] for key in ("status", "seconds", "problems")} for name, row in done.items()}, "figures": figures})
    return int(any(row["status"] != "ok" for row in done.values()))


def compare_figures(args):
    import time

    from .. import series

    start, asked = time.monotonic(), {"tolerance": args.tolerance} if args.tolerance is not None else {}
    found = series.check_figures(args.names, args.drawn, exact=args.exact, jobs=args.jobs, **asked)
    for name, row in found.items():
        state = "same bytes" if row["same_bytes"] else f"numbers moved by {row['moved']:.2%} at most"
        more = [f"and {len(row['problems']) - 5} more"] if len(row["problems"]) > 5 else []
        print(f"{'LOOK' if row['problems'] else 'ok  '}  {name}: {state}" + "".join(f"\n      {problem}" for problem in row["problems"][:5] + more))
    print("\nnotebook  figures  to look at  same bytes  moved at most")
    for number in sorted({name[:2] for name in found}):
        rows = [row for name, row in found.items() if name[:2] == number]
        counted = [len(rows), sum(bool(row["problems"]) for row in rows), sum(row["same_bytes"] for row in rows)]
        print(f"{number:<8}  {counted[0]:7}  {counted[1]:10}  {counted[2]:10}  {max(row['moved'] for row in rows):13.2%}")
    wrong = sum(bool(row["problems"]) for row in found.values())
    print(f"{len(found)} figures: {len(found) - wrong} as committed, {wrong} to look at; {sum(row['same_bytes'] for row in found.values())} the same to the byte; "
          f"{time.monotonic() - start:.0f} s")
    write_json(args.json, found)
    return int(bool(wrong))


def examine(args):
    from .. import series

    checks = series.examine()
    for check in checks:
        print(f"{'ok  ' if check['ok'] else 'LOOK'}  {check['what']}: {check['found']}" + (f"\n      try: {check['try']}" if check["try"] else ""))
    write_json(args.json, checks)
    return int(not all(check["ok"] for check in checks))


def rewrite_badges(args):
    from .. import series

    changed = series.rewrite_badges(args.from_git)
    print("\n".join(f"rewritten: {name}" for name in changed) or "every badge is right")

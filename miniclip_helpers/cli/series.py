"""The commands around the series: run, doctor, badges."""

from .common import add_json, command, write_json


def add_series(commands):
    """The commands around the series: run, doctor, badges."""
    run = command(commands, "run", run_series, "run the notebooks of the series",
        ["miniclip run",
         "miniclip run 04 --profile smoke",
         "miniclip run --jobs 2"])
    run.add_argument("names", nargs="*", metavar="NAME", help="notebooks, like 04 or 04_train_from_scratch; all by default")
    run.add_argument("--profile", default="offline", help="offline (default), smoke (seconds, to see that all works) or online (the real CLIP)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at once (default 1)")
    run.add_argument("--update", action="store_true", help="write outputs and figures back into notebooks/ and figures/")
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

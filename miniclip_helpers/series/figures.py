"""The figures of the series: whether what a run draws is what is committed, and whether each committed figure is fit to be shown."""

import json
import math
import pathlib
import re

from .. import plots, runtime
from ..errors import DataError, UsageError
from .running import pick, run

TOLERANCE = 0.05  # of the largest number beside it: what other processors may change in trained numbers
INK_TOLERANCE = 0.03  # of all pixels
LEAST_INK, MOST_INK = 0.005, 0.98
LIGHT = 240  # the grey value that a background has at least
LEAST_LETTERS = 8.0  # pixels on a page 600 pixels wide: 7 points


def draw_figures(names=(), jobs=1, say=print):
    """Run notebooks, write their figures and outputs back. Returns (what `run` returns, {figure: "as before", "changed", "new" or "drawn by no cell"})."""
    before = _digests()
    done = run(names, jobs=jobs, update=True, say=say)
    after, numbers = _digests(), {stem[:2] for stem in done}
    return done, {name: _became(name, before.get(name), after[name]) for name in sorted(after) if name[:2] in numbers}


def _became(name, before, after):
    if not plots.drawing_cell(name):
        return "drawn by no cell"
    return "new" if before is None else "as before" if before == after else "changed"


def _digests():
    """{figure: what its picture, its SVG and its numbers hold} of the committed figures, whole or not."""
    folder, found = runtime.CHECKOUT / "figures", {}
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.svg"), *folder.glob("data/*.json")]):
        found.setdefault(path.stem, []).append(runtime.digest(path.suffix, path.read_bytes()))
    return found


def check_figures(names=(), drawn=None, tolerance=TOLERANCE, exact=False, jobs=1, say=print):
    """Compare the figures of notebooks with the committed ones: {figure: {"problems": [...], "moved": F, "same_bytes": bool}}.

    names: notebooks, all by default. drawn: the folder of figures of an earlier run, such as build/offline/figures; None runs the notebooks now. tolerance:
    how far a number of figures/data may lie from the committed one, as a share of the largest number beside it; "moved" is the most that one did.
    exact: also ask for the same bytes, as one machine gives them; figures that show seconds are excused from both.

    Raises `UsageError` outside a checkout, `DataError` where a notebook fails or `drawn` holds no figures.
    """
    if not runtime.in_checkout():
        raise UsageError("the committed figures stand in a checkout of the project, and this is an installed package; clone the repository first")
    if not 0 <= tolerance < 1:
        raise UsageError(f"expected a tolerance from 0 to below 1, found {tolerance}")
    stems, committed = pick(names), runtime.CHECKOUT / "figures"
    folder = pathlib.Path(drawn) if drawn else _draw(stems, jobs, say)
    if not (folder / "index.md").is_file():
        raise DataError(f"'{folder}' holds no figures of a run; expected a folder with index.md, such as {runtime.build_dir() / 'offline' / 'figures'}")
    numbers, old, new = {stem[:2] for stem in stems}, plots.read_index(committed), plots.read_index(folder)
    found = {}
    for name in sorted({*old, *new, *_digests()}):
        if name[:2] in numbers:
            problems = fitness(committed, name, old.get(name)) if name in old else [f"not in {committed.name}/index.md"]
            found[name] = _against(folder, committed, name, old.get(name), new.get(name), tolerance, exact, problems)
    return found


def _draw(stems, jobs, say):
    """Run the notebooks; the folder that their figures are in."""
    done = run(stems, jobs=jobs, say=say)
    failed = [f"{stem}: {problem}" for stem, row in done.items() for problem in row["problems"]]
    if failed:
        raise DataError("the notebooks do not run, and so their figures cannot be compared", failed)
    return runtime.build_dir() / "offline" / "figures"


def fitness(folder, name, row):
    """What is wrong with one figure by itself: a file that is missing, no caption, no cell that draws it, an empty or dark picture, small letters."""
    files = dict(zip(("picture", "SVG", "data"), (folder / part for part in _parts(name)), strict=True))
    problems = [f"its {kind} is missing" for kind, path in files.items() if not path.is_file()]
    problems += [f"it has no {what}" for what, key in (("caption", "caption"), ("alternative text", "alt")) if not row[key].strip()]
    if plots.drawing_cell(name) != (row["notebook"], row["cell"]) or not row["cell"]:
        problems.append(f"index.md says that cell '{row['cell']}' of '{row['notebook']}' draws it, the series: {plots.drawing_cell(name)}")
    carried = [row["caption"], row["alt"]]
    if seen := _read(plots.look_at_png, files["picture"], problems):
        width = round(plots.WIDTH * plots.STYLE["savefig.dpi"])
        problems += [f"it is {seen['size'][0]} pixels wide, the others {width}"] * (seen["size"][0] != width)
        problems += [f"{seen['ink']:.1%} of its pixels have ink"] * (not LEAST_INK <= seen["ink"] <= MOST_INK)
        problems += ["its background is not light"] * (seen["background"] < LIGHT)
        problems += ["the picture does not carry its caption and its alternative text"] * ([seen["texts"].get(key) for key in ("Title", "Description")] != carried)
    if seen := _read(plots.look_at_svg, files["SVG"], problems):
        problems += ["the SVG does not carry its caption and its alternative text"] * ([seen["title"], seen["desc"]] != carried)
        if seen["letters"] is not None and seen["letters"] < LEAST_LETTERS:
            problems.append(f"its smallest letters are {seen['letters']:.1f} pixels high on a page of 600, at least {LEAST_LETTERS} are asked for")
    if data := _read(_numbers, files["data"], problems):
        problems += ["its data do not hold what is drawn"] * (not data[0].get("drawn"))
    return problems


def _parts(name):
    """The files of a figure, from the folder of figures on."""
    return f"{name}.png", f"{name}.svg", f"data/{name}.json"


def _numbers(path):
    """[what figures/data/NAME.json holds]"""
    found = json.loads(path.read_text(encoding="utf8"))
    return [found if isinstance(found, dict) else {}]


def _read(reader, path, problems):
    """What `reader` finds in a file of a figure; None where it is missing, or, with a line more in `problems`, damaged."""
    if not path.is_file():
        return None
    try:
        return reader(path)
    except (OSError, ValueError, SyntaxError) as error:
        problems.append(f"{path.parent.name}/{path.name} cannot be read ({str(error).splitlines()[0]}); draw it again with miniclip figures {path.name[:2]}")
        return None


def _against(folder, committed, name, old, new, tolerance, exact, problems):
    """One figure of a run against the committed one."""
    if not new:
        return {"problems": [*problems, "no notebook of this run draws it"], "moved": 0.0, "same_bytes": False}
    parts = _parts(name)
    if not old or not all((place / part).is_file() for place in (folder, committed) for part in parts):
        return {"problems": problems or ["the run's files are not whole"], "moved": 0.0, "same_bytes": False}
    timed = old["timed"] and new["timed"]
    if {key: old[key] for key in ("caption", "alt", "timed")} != {key: new[key] for key in ("caption", "alt", "timed")}:
        problems = [*problems, "its caption or its alternative text differs from the run's"]
    unread = []
    before, after, *numbers = (_read(reader, place / part, unread) for reader, part in ((plots.look_at_png, parts[0]), (_numbers, parts[2])) for place in (committed, folder))
    if unread:
        return {"problems": [*problems, *(line for line in unread if line not in problems)], "moved": 0.0, "same_bytes": False}
    moved, told = differences(*(found for found, in numbers), math.inf if timed else tolerance)
    told += [f"size {before['size']}, in this run {after['size']}"] * (before["size"] != after["size"])
    told += [f"ink {before['ink']:.1%}, in this run {after['ink']:.1%}"] * (abs(before["ink"] - after["ink"]) > INK_TOLERANCE)
    same = all((folder / part).read_bytes() == (committed / part).read_bytes() for part in parts)
    told += ["not the same bytes"] * (exact and not same and not timed)
    return {"problems": problems + told, "moved": moved, "same_bytes": same}


def differences(old, new, tolerance, where="data", scale=0.0):
    """(the most that a number moved, as a share of the largest beside it; what differs, in words): two values of plain JSON.

    Words and structure must be the same; numbers may differ by `tolerance`, also those in words. An infinite one forgives everything.
    """
    if math.isinf(tolerance):
        return 0.0, []
    if isinstance(old, (dict, list)) and type(old) is type(new):
        keys = [set(value) if isinstance(value, dict) else set(range(len(value))) for value in (old, new)]
        told = [f"{where}: {len(old)} entries, in this run {len(new)}, not the same ones"] * (keys[0] != keys[1])
        values = old.values() if isinstance(old, dict) else old
        beside = max((abs(value) for value in values if _number(value)), default=0.0)
        parts = [differences(old[key], new[key], tolerance, f"{where}[{key!r}]", beside) for key in sorted(keys[0] & keys[1], key=str)]
        return max((moved for moved, _ in parts), default=0.0), told + [line for _, lines in parts for line in lines]
    if _number(old) and _number(new) and math.isfinite(old) and math.isfinite(new):
        gap = abs(old - new)
        moved = gap / max(scale, abs(old), abs(new)) if gap else 0.0
        return moved, [f"{where}: {old:g}, in this run {new:g}"] if moved > tolerance else []
    if isinstance(old, str) and isinstance(new, str):
        return 0.0, [f"{where}: {old!r}, in this run {new!r}"] * (not same_words(old, new, tolerance))
    return 0.0, [] if repr(old) == repr(new) else [f"{where}: {old!r}, in this run {new!r}"]


def same_words(old, new, tolerance):
    """Whether two texts are the same but for their numbers, and these within `tolerance`. What was rounded, 0.43 or 43%, may also differ by one in its last digit."""
    if re.sub(r"\d+(\.\d+)?", "#", old) != re.sub(r"\d+(\.\d+)?", "#", new):
        return False
    for one, other in zip(*(re.findall(r"\d+(?:\.\d+)?%?", text) for text in (old, new)), strict=True):
        digits, (before, after) = len(one.strip("%").partition(".")[2]), (float(text.strip("%")) for text in (one, other))
        last = 10.0**-digits if digits or "%" in one else 0.0
        if abs(before - after) > max(tolerance * max(before, after), last) + 1e-9:
            return False
    return True


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)

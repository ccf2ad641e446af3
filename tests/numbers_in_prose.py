"""Numbers in the documents against what was measured: reads numbers.yaml, binds each `#` of a phrase to a value, and finds what nobody has bound.

    numbers.yaml                      bound: {DOCUMENT: {"phrase with # for each measured number": expression or list of expressions}}
                                      said: {DOCUMENT: {"words without a number": what must be true for them}}
                                      listed: {DOCUMENT: {PLACE: numbers that come from no run}}
    notebooks/results.json            named results, seconds and memory of the committed run, by name in an expression
    out("02-25", "own", 1)            in a notebook's text: the first number behind a label in the printed output of one of its cells
    table("README.md", "row", 2)      the second number of the line of a document that holds these words
"""

import ast
import functools
import json
import math
import operator
import pathlib
import re

import yaml

from miniclip_helpers.metrics import proportion_interval

BENCHMARKS = "tests/benchmarks/README.md"
ROOT = pathlib.Path(__file__).resolve().parent.parent
# A number of its own: not of a name (Lite0, Flickr8k, 06_fine_tune), a date, a version, an address or an id.
NUMBER = re.compile(r"(?<![\w.,:=^{-])(?<![\w.]-)(?!0\d)[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?(?![\w:^]|[.,-]\d|-[a-z])|(?<![\w.])\.\d+(?!\w)")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "data/MODEL_CARD.md", "notebooks/README.md", *(f"notebooks/{name.name}" for name in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")))]
SIGN = r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?|\.\d+)"
COMPARED = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.USub: operator.neg, ast.Pow: operator.pow}
FUNCTIONS = {"round": round, "log": math.log, "sqrt": math.sqrt, "exp": math.exp, "min": min, "max": max, "abs": abs, "mean": lambda *values: sum(values) / len(values)}


@functools.cache
def mapping():
    return yaml.safe_load((ROOT / "tests" / "numbers.yaml").read_text(encoding="utf8"))


@functools.cache
def measured():
    return json.loads((ROOT / "notebooks" / "results.json").read_text(encoding="utf8"))


@functools.cache
def cells(document):
    return json.loads((ROOT / document).read_text(encoding="utf8"))["cells"]


@functools.cache
def read(document):
    """{place: text}: the prose of a notebook by cell; any other document by its headings. Code, addresses and pictures are not prose."""
    if document.endswith(".ipynb"):
        parts = {cell["id"]: "".join(cell["source"]) for cell in cells(document) if cell["cell_type"] == "markdown"}
    elif document.endswith(".py"):
        return {"": (ROOT / document).read_text(encoding="utf8")}
    else:
        parts = {}
        for part in re.split(r"(?m)^(?=#{1,4} )", re.sub(r"(?ms)^```.*?^```", "", (ROOT / document).read_text(encoding="utf8"))):
            parts[re.sub(r"^#+ |\s*[(`].*$", "", part.split("\n")[0]).strip() or "top"] = part
    return {place: plain(text) for place, text in parts.items()}


def plain(text):
    """Prose alone: without fenced code, the targets of links, pictures, comments."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    return re.sub(r"\]\([^)\s]*\)|<!--.*?-->|\$\$.*?\$\$", "]", text, flags=re.DOTALL)


def value_of(text):
    return float(text.replace(",", ""))


def fits(shown, value):
    """Whether a number as it is printed is a value, rounded to the places that are shown."""
    digits = shown.replace(",", "")
    if "e" in digits:
        return math.isclose(float(digits), value, rel_tol=0.05)
    places = len(digits.partition(".")[2])
    return abs(float(digits) - value) <= 0.5 * 10**-places + 1e-9


def printed(document, cell):
    """The text that a cell of a notebook has printed."""
    (found,) = (c for c in cells(document) if c["id"] == cell)
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in found["outputs"]]
    return "\n".join("".join(text) for text in texts)


def behind(text, label, place, where):
    lines = [line for line in text.splitlines() if label in line]
    if not lines:
        raise LookupError(f"{where} has no line with {label!r}")
    numbers = re.findall(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?", lines[0][lines[0].index(label) + len(label) :])
    if len(numbers) < place:
        raise LookupError(f"{where}: behind {label!r} stand {len(numbers)} numbers, number {place} is asked for")
    return value_of(numbers[place - 1])


@functools.cache
def names(document):
    """What an expression may use: results by name, of all notebooks; seconds(n) and memory(n) in GB; printed output, tables, counts of the data, Wilson's interval."""
    by_number = {name[:2]: row for name, row in measured().items()}
    found = {name: value for row in measured().values() for name, value in row["results"].items()}
    return found | FUNCTIONS | {
        "seconds": lambda number: by_number[number]["seconds"], "memory": lambda number: by_number[number]["peak_memory_mb"] / 1000,
        "all_seconds": sum(row["seconds"] for row in by_number.values()),
        "out": lambda cell, label, place=1: behind(printed(document, cell), label, place, f"the output of {cell}"),
        "out_of": lambda number, cell, label, place=1: behind(printed(notebook(number), cell), label, place, f"the output of {cell}"),
        "table": lambda other, label, place=1, under="": behind(chapter(other, under), label, place, other),
        "bench": lambda label, place=1, under="": behind(chapter(BENCHMARKS, under), label, place, BENCHMARKS),
        "both": both_directions, "row": row_under,
        "rows": lambda name, column="", value="": sum(row == value for row in column_of(name, column)) if column else len(column_of(name, "id")),
        "different": lambda name, column: len(set(map(str, column_of(name, column)))),
        "translated": lambda name, language: sum(language in dict(row) for row in column_of(name, "translations")),
        "megabytes": lambda file: (ROOT / file).stat().st_size / 1e6,
        "entries": lambda file, key: len(listed_in(file, key)) if not isinstance(listed_in(file, key), int) else listed_in(file, key),
        "low": lambda hits, of: 100 * proportion_interval(int(hits), int(of))[0], "high": lambda hits, of: 100 * proportion_interval(int(hits), int(of))[1],
    }


def chapter(document, under):
    """The text of a document, or from the heading that begins with these words on."""
    text = (ROOT / document).read_text(encoding="utf8")
    return text[text.index(f"\n## {under}") :] if under else text


def row_under(words, row):
    """The numbers of a row of the benchmarks, in the first table below these words."""
    text = (ROOT / BENCHMARKS).read_text(encoding="utf8")
    (line, *_) = (line for line in text[text.index(f"\n{words}") :].splitlines() if line.startswith(f"| {row} |"))
    return [value_of(cell) for cell in line.split("|")[2:-1]]


def both_directions(row, *means):
    """A row of what was tried on locked towers, with the mean of both directions in place of each: [mean] or [mean, difference, from, to] for each data set.

    means: what the means were before both directions were rounded, where the rounded ones leave two possible last digits; they must fit.
    """
    (line,) = (line for line in chapter(BENCHMARKS, "What was tried").splitlines() if line.startswith(f"| {row} |"))
    values = []
    for cell in line.split("|")[2:-1]:
        numbers = list(map(float, re.findall(r"[-+]?\d+\.\d", cell)))
        values += [[(numbers[0] + numbers[1]) / 2, *numbers[2:]]] if numbers else []
    for value, mean in zip(values, means):
        if abs(value[0] - mean) > 0.051:
            raise LookupError(f"{row}: the mean of both directions is {value[0]:.2f}, not {mean}")
        value[0] = mean
    return [number for value in values for number in value]


@functools.cache
def column_of(name, column):
    """A column of an embedded table."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(ROOT / "data" / f"{name}.parquet", columns=[column])[column].to_pylist()


def listed_in(file, key):
    return json.loads((ROOT / file).read_text(encoding="utf8"))[key]


def notebook(number):
    (file,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return file.relative_to(ROOT).as_posix()


@functools.cache
def evaluate(expression, document):
    """The value, or list of values, of an expression out of names, numbers, words, signs and calls; nothing else is run."""
    if not isinstance(expression, str):
        return float(expression)
    known = names(document)

    def walk(node):
        match node:
            case ast.Expression():
                return walk(node.body)
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in known:
                return known[node.id]
            case ast.UnaryOp():
                return OPERATORS[type(node.op)](walk(node.operand))
            case ast.BinOp():
                return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
            case ast.Compare():
                values = [walk(node.left), *map(walk, node.comparators)]
                return all(COMPARED[type(sign)](a, b) for sign, a, b in zip(node.ops, values, values[1:]))
            case ast.Call():
                return walk(node.func)(*map(walk, node.args))
        raise LookupError(f"{expression!r}: {ast.unparse(node)} is no result, and nothing that an expression may use")

    return walk(ast.parse(expression, mode="eval"))


@functools.cache
def pattern(phrase):
    """A phrase as it may stand in a document: any white space between words, a number for each #."""
    parts = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in phrase.split("#")]
    return re.compile(SIGN.join(parts))


@functools.cache
def bound(document):
    """The phrases of a document: [(phrase, [expression])]."""
    phrases = mapping()["bound"].get(document, {})
    return [(phrase, given if isinstance(given, list) else [given]) for phrase, given in phrases.items()]


def faults(document, parts=None):
    """What is wrong with the bound numbers of a document, as lines; parts: its prose, by default as it stands on the disk."""
    parts, found = read(document) if parts is None else parts, []
    for phrase, expressions in bound(document):
        places = [(place, match) for place, text in parts.items() for match in pattern(phrase).finditer(text)]
        if len(places) != 1:
            found.append(f"{document}: {phrase!r} stands there {len(places)} times, not once")
            continue
        values = [(expression, evaluate(expression, document)) for expression in expressions]
        values = [(expression, value) for expression, given in values for value in (given if isinstance(given, list) else [given])]
        if phrase.count("#") != len(values):
            found.append(f"{document}: {phrase!r} has {phrase.count('#')} numbers and {len(values)} values")
        for shown, (expression, value) in zip(places[0][1].groups(), values):
            if not fits(shown, value):
                found.append(f"{document}, {places[0][0]}: {phrase!r}: it says {shown}, {expression} is {value:.6g}")
    return found


def spans(document, text, signs_only=False):
    """Where bound phrases stand in a text; signs_only: where their measured numbers do."""
    found = []
    for phrase, _ in bound(document):
        for match in pattern(phrase).finditer(text):
            found += [match.span(number) for number in range(1, phrase.count("#") + 1)] if signs_only else [match.span()]
    return found


def left(document, parts=None):
    """{place: [numbers]} of a document that no phrase covers."""
    rest, known = {}, elsewhere().get(document, {})
    for place, text in (read(document) if parts is None else parts).items():
        numbers = [text[slice(*span)] for span in uncovered(document, text)]
        if numbers and place not in known:
            rest[place] = numbers
    return rest


def uncovered(document, text):
    """Where the numbers of a text stand that no phrase covers, and no code."""
    covered = spans(document, text) + [match.span() for match in re.finditer(r"`[^`\n]+`", text)]
    return [match.span() for match in NUMBER.finditer(text) if not any(start <= match.start() and match.end() <= end for start, end in covered)]


def listed(document):
    """{place: [numbers]} that are known to come from no run of ours: definitions, dates, arithmetic, published."""
    return {place: str(numbers).split() for place, numbers in mapping()["listed"].get(document, {}).items() if not str(numbers).startswith("tests/")}


def elsewhere():
    """{document: {place: the test that checks its numbers}}."""
    return {document: {place: test for place, test in places.items() if str(test).startswith("tests/")} for document, places in mapping()["listed"].items()}


def untrue(document):
    """What words say of the results and is not so."""
    parts, found = read(document), []
    for phrase, condition in mapping()["said"].get(document, {}).items():
        if sum(len(pattern(phrase).findall(text)) for text in parts.values()) != 1:
            found.append(f"{document}: {phrase!r} does not stand there once")
        elif evaluate(condition, document) != 1:
            found.append(f"{document}: {phrase!r} is said, and {condition} is not so")
    return found


def mutants(document, which):
    """Each digit of some numbers changed, in memory: (place, the number, the changed number, {place: its changed text}); which(document, text): where they stand."""
    for place, text in read(document).items():
        for start, end in sorted(set(which(document, text))):
            shown = text[start:end]
            for at, digit in enumerate(shown):
                if digit.isdigit():
                    other = shown[:at] + str((int(digit) + 1) % 10) + shown[at + 1 :]
                    yield place, shown, other, {place: text[:start] + other + text[end:]}


def measured_in(document, text):
    """Where the measured numbers of a text stand."""
    return spans(document, text, signs_only=True)


if __name__ == "__main__":  # the part `listed:` of numbers.yaml as it would be now: read each number before you put it there
    now = {document: left(document) for document in DOCUMENTS}
    for document, places in now.items():
        print(f"  {document}:")
        for place, numbers in (elsewhere().get(document, {}) | {place: " ".join(numbers) for place, numbers in places.items()}).items():
            print(f"    {json.dumps(place, ensure_ascii=False)}: {json.dumps(numbers)}")

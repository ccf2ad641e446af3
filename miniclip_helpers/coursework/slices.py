"""What has to run to grade a notebook: exercises, checks, the learner's own cells, and of the series' cells those whose names these need."""

import ast
import bisect
import functools
import re
import symtable

EXERCISE, CHECK, OWN, TEACHING = "exercise", "check", "own", "teaching"
LONGEST, MOST, IN_ALL = 200_000, 300, 1_000_000  # letters of a cell; cells of their own, and their letters together


def steps(notebook, release, parameters=None, left_out=()):
    """The steps of a repaired notebook in order: {"cell": its place, "role", "source", "needs": places before it, "exercise": its cell, of a check}.

    release: the notebook that students got; its cells that came back unchanged run only where a name of theirs is needed. parameters: set behind the
    cell tagged "parameters". left_out: places of cells that never run.
    """
    code, roles = _code(notebook, release, left_out)
    exercises = {_mark(cell)["grade_id"] + "-test": place for place, cell in code.items() if roles[place] == EXERCISE}
    binders = {}  # name: the places of the cells that bind it, in order
    for place, cell in code.items():
        for name in names(cell.source)[0]:
            binders.setdefault(name, []).append(place)
    found = {}
    for place, role in roles.items():
        if role != TEACHING:
            found[place] = _needs(place, code, binders)
    for place in sorted({need for needs in found.values() for need in needs}):
        found.setdefault(place, _needs(place, code, binders))
    return [{"cell": place, "role": roles[place], "source": _source(code[place], parameters), "needs": found[place],
             "exercise": exercises.get(_mark(code[place]).get("grade_id")) if roles[place] == CHECK else None} for place in sorted(found)]


def too_much(notebook, release, left_out=()):
    """(places of cells that are too long or too many to run, a line on each kind of them): they would keep everybody else waiting."""
    places, lines, own, letters = [], [], 0, 0
    code, roles = _code(notebook, release, left_out)
    for place, cell in code.items():
        if roles[place] in (EXERCISE, OWN) and len(cell.source) > LONGEST:
            places.append(place)
            lines.append(f"cell number {place + 1} has {len(cell.source):,} letters, more than {LONGEST:,}; it does not run")
        elif roles[place] == OWN:
            own, letters = own + 1, letters + len(cell.source)
            places += [place] * (own > MOST or letters > IN_ALL)
    surplus = len(places) - len(lines)
    if surplus:
        lines.append(f"{surplus} of their {own} own cells, the last ones, do not run: more than {MOST} cells or {IN_ALL:,} letters of their own")
    return places, lines[:10]


def _code(notebook, release, left_out):
    """({place: cell} of the code that may run, {place: its role})."""
    given = {cell.source.strip() for cell in release.cells if cell.cell_type == "code" and not _mark(cell).get("solution")}
    code = {place: cell for place, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()}
    code = {place: code[place] for place in code.keys() - set(left_out)}
    code = dict(sorted(code.items()))
    return code, {place: _role(cell, given) for place, cell in code.items()}


def _mark(cell):
    return cell.metadata.get("nbgrader", {})


def _role(cell, given):
    mark = _mark(cell)
    if mark.get("solution"):
        return EXERCISE
    if mark.get("grade"):
        return CHECK
    return TEACHING if mark or cell.source.strip() in given else OWN


def _source(cell, parameters):
    """The text to run: with the profile's parameters behind those of the notebook."""
    if parameters and "parameters" in cell.metadata.get("tags", []):
        return "\n".join([cell.source, *(f"{name} = {value!r}" for name, value in parameters.items())])
    return cell.source


def _needs(place, code, binders):
    """The places of the cells that bind what the cell at `place` uses, and what those use in turn."""
    found, open_ = set(), [place]
    while open_:
        here = open_.pop()
        for name in names(code[here].source)[1]:
            binder = _last(name, here, binders)
            binder = _last(name, place, binders) if binder is None else binder  # used inside a function: bound by the time it is called
            if binder is not None and binder != place and binder not in found:
                found.add(binder)
                open_.append(binder)
    return sorted(found)


def _last(name, place, binders):
    """The last cell before `place` that binds a name, or None."""
    before = [places[bisect.bisect_left(places, place) - 1] for places in (binders.get(name), binders.get("*")) if places and places[0] < place]
    return max(before, default=None)


@functools.lru_cache(maxsize=10_000)
def names(source):
    """(names that a cell binds at its top, names that it needs from before) of its text; "*" among the bound for a star import."""
    try:
        tree = ast.parse(plain_python(source))
        parts = [(statement, symtable.symtable(ast.unparse(statement), "cell", "exec")) for statement in tree.body]
    except Exception:  # SyntaxError, and whatever a stranger's text makes a parser do
        return frozenset(re.findall(r"^(?:def|class) (\w+)", source, re.MULTILINE)), frozenset()
    bound, needed, later = set(), set(), set()
    for statement, table in parts:
        binds, uses = _of(table)
        uses |= {node.target.id for node in ast.walk(statement) if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)}
        uses -= _targets(statement)
        deferred = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
        (later if deferred else needed).update(uses - bound)
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            bound.add("*")
        bound |= binds
    return frozenset(bound), frozenset(needed | later - bound)


def _targets(statement):
    """What the head of a `for` or `with` binds, before its body uses it."""
    heads = [getattr(statement, "target", None)] if isinstance(statement, (ast.For, ast.AsyncFor)) else [item.optional_vars for item in getattr(statement, "items", [])]
    return {node.id for head in heads if head for node in ast.walk(head) if isinstance(node, ast.Name)}


def plain_python(source):
    """Without magics and shell lines, which become plain calls; a `ValueError` where IPython does not bear them."""
    if not re.search(r"^[ \t]*%|[?!]|=[ \t]*%", source, re.MULTILINE):
        return source
    magics = len(re.findall(r"^[ \t]*[%!?]|=[ \t]*[%!]|\?[ \t]*$", source, re.MULTILINE))
    if magics * len(source) > 2_000_000:
        raise ValueError("IPython reads the whole cell once for each magic")  # minutes, at this length
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return TransformerManager().transform_cell(source)
    except Exception as error:  # it gives up after 500 magics, and more
        raise ValueError("IPython does not understand this cell") from error


def _of(table):
    """(bound, used) of a table of symbols at the top of a module: what inner scopes take from outside counts as used."""
    symbols = table.get_symbols()
    top = table.get_type() == "module"
    bound = {symbol.get_name() for symbol in symbols if (symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()) and (top or symbol.is_declared_global())}
    used = {symbol.get_name() for symbol in symbols if symbol.is_referenced() and (top or symbol.is_global())}
    for inner in table.get_children():
        more = _of(inner)
        bound, used = bound | more[0], used | more[1]
    return bound, used

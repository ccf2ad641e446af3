"""What has to run to grade a notebook: exercises, checks, the learner's own cells, and of the series' cells those whose names these need."""

import ast
import functools
import re
import symtable

EXERCISE, CHECK, OWN, TEACHING = "exercise", "check", "own", "teaching"


def steps(notebook, release, parameters=None, left_out=()):
    """The steps of a repaired notebook in order: {"cell": its place, "role", "source", "needs": places before it, "exercise": its cell, of a check}.

    release: the notebook that students got; its cells that came back unchanged run only where a name of theirs is needed. parameters: set behind the
    cell tagged "parameters". left_out: places of cells that never run.
    """
    given = {cell.source.strip() for cell in release.cells if cell.cell_type == "code" and not _mark(cell).get("solution")}
    code = {place: cell for place, cell in enumerate(notebook.cells)
            if cell.cell_type == "code" and cell.source.strip() and place not in left_out}
    roles = {place: _role(cell, given) for place, cell in code.items()}
    exercises = {_mark(cell)["grade_id"] + "-test": place for place, cell in code.items() if roles[place] == EXERCISE}
    found = {}
    for place, role in roles.items():
        if role != TEACHING:
            found[place] = _needs(place, code)
    for place in sorted({need for needs in found.values() for need in needs}):
        found.setdefault(place, _needs(place, code))
    return [{"cell": place, "role": roles[place], "source": _source(code[place], parameters), "needs": found[place],
             "exercise": exercises.get(_mark(code[place]).get("grade_id")) if roles[place] == CHECK else None} for place in sorted(found)]


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


def _needs(place, code):
    """The places of the cells that bind what the cell at `place` uses, and what those use in turn."""
    found, open_ = set(), [place]
    while open_:
        here = open_.pop()
        for name in names(code[here].source)[1]:
            binder = _last(name, here, code)
            binder = _last(name, place, code) if binder is None else binder  # used inside a function: bound by the time it is called
            if binder is not None and binder not in found | {place}:
                found.add(binder)
                open_.append(binder)
    return sorted(found)


def _last(name, place, code):
    """The last cell before `place` that binds a name, or None."""
    return max((other for other, cell in code.items() if other < place and {name, "*"} & names(cell.source)[0]), default=None)


@functools.lru_cache(maxsize=10_000)
def names(source):
    """(names that a cell binds at its top, names that it needs from before) of its text; "*" among the bound for a star import."""
    try:
        tree = ast.parse(_plain(source))
        parts = [(statement, symtable.symtable(ast.unparse(statement), "cell", "exec")) for statement in tree.body]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
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


def _plain(source):
    """Without magics and shell lines, which become plain calls."""
    if not re.search(r"^\s*[%!?]|[?!]|=\s*[%!]", source, re.MULTILINE):
        return source
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


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

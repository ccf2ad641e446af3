"""Lines of an answer at which an instructor should look: it copies the package's solution, replaces the checks, or reaches into the interpreter.

Reading finds what is meant openly. The hidden tests hold out against it; this says who tried.
"""

import ast

LIBRARIES = {"checks", "np", "numpy", "torch", "F", "miniclip_helpers", "builtins"}
REACHING = {"sys._getframe", "sys._current_frames", "sys.settrace", "sys.setprofile", "inspect.stack", "inspect.currentframe", "gc.get_objects", "gc.get_referrers"}


def oddities(source):
    """A phrase for each thing in a cell at which to look, in order; none where the cell is no plain Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = [phrase for node in ast.walk(tree) for phrase in _of(node)]
    return list(dict.fromkeys(found))


def _of(node):
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            name = _dotted(target)
            if "." in name and name.partition(".")[0] in LIBRARIES and not name.startswith("torch.backends."):
                yield f"replaces {name}"
    elif isinstance(node, ast.Call):
        name = _dotted(node.func)
        if name in ("setattr", "delattr", "mock.patch.object", "patch.object") and node.args and _dotted(node.args[0]).partition(".")[0] in LIBRARIES:
            yield f"replaces a part of {_dotted(node.args[0])}"
        elif name in REACHING:
            yield f"reaches into the interpreter by {name}"
        elif name.startswith(("checks.solution", "checks.exercise")):
            yield f"asks for a solution by {name}"
    elif isinstance(node, ast.Attribute) and node.attr in ("reference", "input_transformers_post", "set_custom_exc", "ast_transformers"):
        yield f"uses .{node.attr}"
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        yield from (f"imports {name}" for name in names if name.startswith("miniclip_helpers.checks"))


def _dotted(node):
    """"checks.core.grade" of the node that says so; "" of any other."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""

"""Lines of an answer at which an instructor should look: it copies the package's solution, replaces the checks, or reaches into the interpreter.

Reading finds what is meant openly. The hidden tests hold out against it; this says who tried.
"""

import ast

from .slices import plain_python

LIBRARIES = {"checks", "np", "numpy", "torch", "F", "miniclip_helpers", "builtins"}
REACHING = {"sys._getframe", "sys._current_frames", "sys.settrace", "sys.setprofile", "inspect.stack", "inspect.currentframe", "gc.get_objects", "gc.get_referrers"}
FRAMES = {"tb_frame", "f_back", "f_locals", "f_globals", "gi_frame", "cr_frame", "ag_frame"}
INNER = {"__path__", "__builtins__", "__code__", "__globals__"} | FRAMES
HOOKS = {"reference", "input_transformers_post", "set_custom_exc", "ast_transformers"}
MAGICS = {"run_line_magic", "run_cell_magic", "system", "getoutput"}


def oddities(source):
    """A phrase for each thing in a cell at which to look, in order; none where the cell is no Python; magics are read as the calls that they become."""
    try:
        tree = ast.parse(plain_python(source))
        magics = {id(node.value.func) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in MAGICS and isinstance(node.value, ast.Call)}
        return list(dict.fromkeys(phrase for node in ast.walk(tree) if id(node) not in magics for phrase in _of(node)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


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
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "run_cell_magic" and len(node.args) == 3 and isinstance(node.args[2], ast.Constant):
            yield from oddities(str(node.args[2].value))
        elif name.startswith(("checks.solution", "checks.exercise")):
            yield f"asks for a solution by {name}"
    elif isinstance(node, ast.Attribute) and node.attr in HOOKS | INNER:
        yield f"uses .{node.attr}"
    elif isinstance(node, ast.Attribute) and _dotted(node) == "sys.modules":
        yield "reaches into the interpreter by sys.modules"
    elif isinstance(node, ast.Name) and node.id in ("get_ipython", "__import__", *INNER):
        yield f"uses {node.id}"
    elif isinstance(node, ast.Constant) and node.value in INNER:
        yield f"names {node.value}"
    elif isinstance(node, ast.Subscript) and _library_of(node.value):
        yield f"reaches into {_library_of(node.value)}"
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        yield from (f"imports {name}" for name in names if name.startswith("miniclip_helpers.checks") or name.partition(".")[0] == "importlib")


def _library_of(node):
    """"np" of `vars(np)` and of `np.__dict__`; "" of any other."""
    if isinstance(node, ast.Call) and _dotted(node.func) == "vars" and node.args:
        node = node.args[0]
    elif isinstance(node, ast.Attribute) and node.attr == "__dict__":
        node = node.value
    else:
        return ""
    return _dotted(node) if _dotted(node).partition(".")[0] in LIBRARIES else ""


def _dotted(node):
    """"checks.core.grade" of the node that says so; "" of any other."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""

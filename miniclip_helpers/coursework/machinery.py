"""What runs and judges a learner's cells, as it was before the first of them, put back before each: IPython's parts, the loaders of modules, NumPy, torch.

A cell may change all of it for itself. What it changes for later cells would change their verdict. Whoever changes it in the same cell as the verdict
is the matter of `running`, which tries a wrong answer.
"""

import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import types

from ..checks import judging

LOADERS = (importlib.machinery.PathFinder, importlib.machinery.FileFinder, importlib.machinery.SourceFileLoader, importlib.machinery.ModuleSpec)
# These are put back whatever stands there. Of the other libraries the hidden test tells the learner what the notebook has replaced.
ALWAYS = ("builtins", "importlib", "importlib.util", "importlib.machinery")
CHECKS = "miniclip_helpers.checks"
KINDS = (types.FunctionType, classmethod, staticmethod)


class Machinery:
    """Taken from a kernel before its first cell."""

    def __init__(self, kernel):
        self._shell, manager, events = kernel.shell, kernel.shell.input_transformer_manager, kernel.shell.events
        self._objects = [(thing, dict(vars(thing)), _methods(type(thing))) for thing in (self._shell, kernel, kernel.session, manager, events)]
        kinds = {kind for thing, *_ in self._objects for kind in type(thing).__mro__} | {kind for loader in LOADERS for kind in loader.__mro__}
        self._classes = [(kind, {name: value for name, value in vars(kind).items() if isinstance(value, KINDS)}) for kind in kinds - {object}]
        self._libraries = [_library(place) for place in dict.fromkeys((*ALWAYS, *judging.LIBRARIES))]
        functions = [value for _, _, found in self._libraries for value in found.values()] + [value for _, found in self._classes for value in found.values()]
        self._codes = [(value, value.__code__) for value in functions if isinstance(value, types.FunctionType)]
        self._transforms = {name: list(getattr(manager, name)) for name in ("cleanup_transforms", "line_transforms", "token_transformers")}
        self._callbacks = {name: list(found) for name, found in events.callbacks.items()}
        self._manager, self._events, self._builtins = manager, events, self._shell.user_ns.get("__builtins__")
        self._checks = importlib.import_module(CHECKS)
        self._modules = {name: sys.modules[name] for name in (*ALWAYS, CHECKS, "miniclip_helpers", "numpy", "torch")}
        self._path, self._hooks, self._interval = list(self._checks.__path__), list(sys.path_hooks), sys.getswitchinterval()

    def restore(self):
        """Put everything back; what has not changed is left as it is."""
        sys.modules.update(self._modules)
        for function, code in self._codes:
            if function.__code__ is not code:
                function.__code__ = code
        for kind, found in self._classes:
            for name, value in found.items():
                if vars(kind).get(name) is not value:
                    setattr(kind, name, value)
        for place, owner, found in self._libraries:
            _put_back(owner, found, place in ALWAYS)
        for thing, before, methods in self._objects:
            for name in methods & vars(thing).keys():
                if name not in before:
                    del vars(thing)[name]
            vars(thing).update({name: before[name] for name in methods & before.keys()})
        self._restore_shell()
        self._checks.__path__ = list(self._path)
        sys.path_hooks[:] = self._hooks
        for folder in self._path:
            sys.path_importer_cache.pop(folder, None)
        sys.setswitchinterval(self._interval)

    def _restore_shell(self):
        shell = self._shell
        shell.input_transformer_manager, shell.events = self._manager, self._events
        for name, value in self._transforms.items():
            setattr(self._manager, name, list(value))
        flush = getattr(sys.modules.get("matplotlib_inline.backend_inline"), "flush_figures", None)  # a cell that draws asks for it
        asked = [flush] if flush and flush in self._events.callbacks.get("post_execute", []) else []
        self._events.callbacks = {name: [*found, *(asked if name == "post_execute" else [])] for name, found in self._callbacks.items()}
        shell.ast_transformers, shell.input_transformers_post, shell.custom_exceptions = [], [], ()
        if self._builtins is None:
            shell.user_ns.pop("__builtins__", None)
        else:
            shell.user_ns["__builtins__"] = self._builtins


def _methods(kind):
    return {name for each in kind.__mro__[:-1] for name, value in vars(each).items() if inspect.isfunction(value)}


def _library(place):
    """(place, the module or class, its functions and classes by name) of "torch" or "torch:Tensor"."""
    module, _, inner = place.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, inner) if inner else owner
    return place, owner, {name: value for name, value in vars(owner).items() if callable(value) or isinstance(value, KINDS)}


def _put_back(owner, found, always):
    now = vars(owner)
    for name, value in found.items():
        other = now.get(name)
        if other is not value and (always or not judging.written_here(other)):
            setattr(owner, name, value)
    if isinstance(owner, type):  # a name that hides an inherited one
        inherited = {name for kind in owner.__mro__[1:] for name in vars(kind)}
        for name in [name for name, value in now.items() if name not in found and name in inherited and isinstance(value, KINDS) and not judging.written_here(value)]:
            delattr(owner, name)

"""Pages of the package: an overview, one page for each module with what it makes public, and one for the commands."""

import argparse
import importlib
import inspect
import os
import pathlib
import re

PACKAGE = "miniclip_helpers"
APART = {"cli": "the command line, on a page of its own: :doc:`/commands`"}


def layers(root):
    """[(number, [module, ...])], read from the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| ((?:`\w+` ?)+)\|", (root / "CONTRIBUTING.md").read_text(encoding="utf8"), re.MULTILINE)
    return [(int(number), re.findall(r"`(\w+)`", names)) for number, names in rows]


def public(module):
    """The public names of a module: __all__, or else what it defines without an underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=lambda name: (inspect.isroutine(getattr(module, name)), name.isupper(), name.lower()))
    own = {name: thing for name, thing in vars(module).items() if not name.startswith("_") and not inspect.ismodule(thing)}
    return [name for name, thing in own.items() if name.isupper() or getattr(thing, "__module__", None) == module.__name__]


def kind(thing):
    if inspect.isclass(thing):
        return "exception" if issubclass(thing, BaseException) else "class"
    return "function" if inspect.isroutine(thing) else "data"


def first_line(text):
    return (inspect.cleandoc(text or "").split("\n\n")[0].replace("\n", " ")).replace("`", "``")


def modules(root):
    """{page: reStructuredText} of the overview and of each module, in the order of the layers."""
    pages, overview, tree = {}, [], []
    for number, names in layers(root):
        for name in names:
            module = importlib.import_module(f"{PACKAGE}.{name}")
            if name in APART:
                overview += [heading(name, "-"), first_line(module.__doc__), f"See {APART[name]}.", ""]
                continue
            things = public(module)
            overview += [heading(f":doc:`api/{name}`", "-"), "", *summary(module, things)]
            tree.append(f"   api/{name}")
            pages[f"api/{name}.rst"] = module_page(module, name, number, things)
    head = [heading("The package", "="), "", f"What ``{PACKAGE}`` makes public, by module: ``from {PACKAGE} import losses, metrics``. The order is that of the layers: "
            "a module uses only those that stand before it.", "", ".. toctree::", "   :hidden:", "", *tree, ""]
    return {"package.rst": "\n".join(head + overview), **pages}


def heading(text, mark):
    return f"{text}\n{mark * len(text)}\n"


def summary(module, things):
    return [f".. currentmodule:: {module.__name__}", "", first_line(module.__doc__), "", ".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in things), ""]


def module_page(module, name, number, things):
    lines = [heading(name, "="), f".. automodule:: {module.__name__}", "   :no-members:", "", f".. currentmodule:: {module.__name__}", ""]
    for thing in things:
        what = kind(getattr(module, thing))
        lines += [f".. auto{what}:: {thing}", *(f"   {option}" for option in options(what, getattr(module, thing))), ""]
    return "\n".join(lines)


def options(what, thing):
    if what == "data":
        return [":no-value:"] if isinstance(thing, pathlib.PurePath) or len(repr(thing)) > 160 else []  # a path says where this machine has it
    return [] if what == "function" else [":members:", *([":show-inheritance:"] if thing.__bases__ != (object,) else [])]


def commands():
    """A page with the help of each command."""
    from miniclip_helpers import cli

    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "90"  # argparse fits its lines to the terminal
    try:
        parser = cli.build_parser()
        parts = ["# Commands", "`miniclip COMMAND --help` prints the same. Exit codes: 0 done, 1 failed, 2 wrong use."]
        for name, about, command in below(parser):
            deeper = below(command)
            parts += [f"## miniclip {name}", sentence(about)] + ([] if deeper else [block(command)])
            parts += [part for sub, said, one in deeper for part in (f"### miniclip {name} {sub}", sentence(said), block(one))]
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "\n\n".join(part for part in parts if part) + "\n"


def below(parser):
    """[(name, one line of help, parser)] of a parser's commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return [(name, helps.get(name, ""), one) for name, one in action.choices.items()]
    return []


def sentence(text):
    return text[:1].upper() + text[1:] + "." * (not text.endswith(".")) if text else ""


def block(parser):
    return "````text\n" + parser.format_help().rstrip() + "\n````"

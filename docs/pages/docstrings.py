"""Docstrings of the package are plain sentences, with `names` in backticks and parameters as "name: what it is". Here they become reStructuredText."""

import inspect
import pathlib
import re
import sys

STARTS = r"Returns?|Yields?|Raises|Source|Sources|Errors"


def parameters_of(thing):
    try:
        return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]
    except (TypeError, ValueError):
        return []


def escape(text, own=()):
    """`names` become literals, with a link where they are public, unless they are the function's `own` parameters; what else reStructuredText would take for markup is escaped."""
    parts = re.split(r"``([^`]+)``|`([^`]+)`", text)
    plain = [re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts[::3]]
    text = plain[0]
    for mark, after in zip((one or two for one, two in zip(parts[1::3], parts[2::3])), plain[1:]):  # a literal must not touch a letter: `Index`es
        literal = f":py:obj:`{mark}`" if re.fullmatch(r"[A-Za-z_][\w.]*", mark) and mark not in own else f"``{mark}``"
        text += ("\\ " if re.search(r"\w$", text) else "") + literal + ("\\ " if re.match(r"\w", after) else "") + after
    return text


def paragraph(text, names):
    """Lines of one paragraph. From the first "parameter: " on it is a list: a point for each parameter, and one for what is returned, raised, or the source."""
    text = " ".join(text.split())
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
    group = rf"[*]*(?:{name})(?: \([^)]*\))?(?:,? (?:and )?(?:{name})(?: \([^)]*\))?)*(?=: )"
    first = re.search(rf"(?:^|(?<=[.;:)] )){group}", text)
    if not first:
        return [escape(text, names), ""]
    items = [item.strip() for item in re.split(rf"(?<=[.;] )(?={group}|(?:{STARTS})\b)", text[first.start():])]
    before = [escape(text[: first.start()].strip(), names), ""] if first.start() else []
    return [*before, *(f"* {point(item, group, names)}" for item in items), ""]


def point(item, group, names):
    """One point of the list, its parameters in bold."""
    head = re.match(group, item)
    said = re.match(rf"({STARTS})\b", item)
    if said:
        return f"*{said[1]}*{escape(item[said.end():], names)}"
    return re.sub(r"[A-Za-z_]\w*", lambda word: f"**{word[0]}**" if word[0] in names else word[0], escape(head[0])) + escape(item[head.end():], names)


def constant(name):
    """What the comment beside a constant says, in the file that sets it."""
    module, _, own = name.rpartition(".")
    place = pathlib.Path(sys.modules[module].__file__)
    for path in [place, *sorted(place.parent.glob("*.py"))] if place.name == "__init__.py" else [place]:
        found = re.search(rf"^{own} = .*?(?:  # (.+))?$", path.read_text(encoding="utf8"), re.MULTILINE)
        if found:
            return (found[1] or "").replace("noqa", "")
    return ""


def render(app, what, name, thing, options, lines):
    """Change the lines of one docstring in place, as autodoc asks."""
    names = parameters_of(thing) if what in ("function", "method", "class", "exception") else []
    text = constant(name) if what == "data" else "\n".join(lines).strip()
    rendered = []
    for part in re.split(r"\n\s*\n", re.sub(r"^(?!>>>)(.+)\n>>>", r"\1\n\n>>>", text, flags=re.MULTILINE)):
        if re.match(r"\d\. ", part):
            rendered += [*map(escape, part.split("\n")), ""]
        elif part.startswith(">>>"):
            rendered += [*part.split("\n"), ""]
        else:
            rendered += paragraph(part, names)
    lines[:] = rendered


def skip(app, what, name, thing, skipped, options):
    """Leave out the fields of named tuples that say only that they are fields."""
    return True if (inspect.getdoc(thing) or "").startswith("Alias for field number") else None


def setup(app):
    app.connect("autodoc-process-docstring", render)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

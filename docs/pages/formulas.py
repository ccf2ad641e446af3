"""Formulas as MathML, which browsers draw themselves: no script and no font is fetched. docutils translates."""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


SIDES = {"(": "l", "[": "l", ")": "r", "]": "r"}


def to_mathml(tex, block):
    tex = re.sub(r"\\([bB]igg?)([()\[\]])", lambda found: f"\\{found[1]}{SIDES[found[2]]}{found[2]}", tex)  # docutils knows \Bigl( and not \Big(
    formula = latex2mathml.tex2mathml(tex, as_block=block)
    return re.sub(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()", '<mspace width="0.17em"></mspace>', formula)  # log 3, not log3


def write(self, node, block):
    try:
        formula = to_mathml(node.astext(), block)
    except MathError as error:
        logger.warning("a formula that docutils cannot translate: %s (%s)", node.astext(), error, location=node)
        formula = f"<code>{self.encode(node.astext())}</code>"
    self.body.append(f'<div class="formula">{formula}</div>\n' if block else formula)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (lambda self, node: write(self, node, False), None), (lambda self, node: write(self, node, True), None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""What the site needs besides Sphinx: pages that are laid out, notebooks prepared, formulas and docstrings rendered."""

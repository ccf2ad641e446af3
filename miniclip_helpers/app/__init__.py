"""The photo search as a web page: a notebook of this folder, by Voila, with nothing asked of anybody outside this machine. `miniclip app INDEX` opens it."""

from .page import open_page
from .serving import show, voila_command, voila_environment

__all__ = ["open_page", "show", "voila_command", "voila_environment"]

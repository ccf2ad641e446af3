"""The photo search as a web service on the loopback: words or a picture in, names and cosines out. `miniclip serve INDEX` starts it."""

from .app import create_app
from .engine import Engine
from .running import serve

__all__ = ["Engine", "create_app", "serve"]

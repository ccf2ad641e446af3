"""What a photo's file says beside the picture."""

import math

from .. import images

GPS = 0x8825  # EXIF 2.32: the part that holds the place; 1 and 3 in it are N or S and E or W, 2 and 4 degrees, minutes and seconds


def place_of(file):
    """(degrees north, degrees east) where a photo was taken, as its EXIF says, or None where it does not. Negative is south and west.

    Such heads are written by cameras, and edited by anything: what is not a place on this earth counts as none.
    """
    try:
        with images.open_head(file) as picture:
            told = picture.getexif().get_ifd(GPS)
        north, east = (sum(float(part) / 60**power for power, part in enumerate(told[tag])) for tag in (2, 4))
    except (OSError, SyntaxError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    north, east = (-north if told.get(1) == "S" else north), (-east if told.get(3) == "W" else east)
    return (north, east) if math.isfinite(north + east) and abs(north) <= 90 and abs(east) <= 180 else None

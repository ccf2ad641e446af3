"""Pictures that are nearly the same: scaled, compressed anew, a little brighter. Equal files are found by `fingerprint`; these are not."""

import numpy as np

from .. import images

BLOCK = 512


def near_duplicates(dataset, distance=6, alike=0.97):
    """Pairs of near-duplicates: list of (i, j, bits), i < j, those with the fewest bits first; `bits` is how far their hashes are apart.

    Two looks: the difference hashes differ in at most `distance` of 64 bits, and the correlation of the two pictures at 16 x 16
    pixels, in colour, is at least `alike`. The hash alone takes every narrow shape on white for every other; alike=-1 shows what it
    finds by itself. Mirrored and cropped copies are not found. Each pair is compared: 10,000 pictures take seconds.
    """
    hashes, looks = [], []
    for image in dataset.images():
        hashes.append(images.difference_hash(image))
        looks.append(_look(image))
    hashes, looks = np.array(hashes, dtype=np.uint64), np.array(looks, dtype=np.float32)
    found = []
    for start in range(0, len(hashes), BLOCK):
        bits = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, start:])
        rows, columns = np.nonzero(np.triu(bits <= distance, 1))
        keep = np.einsum("nd,nd->n", looks[start + rows], looks[start + columns]) >= alike
        found += [(start + int(i), start + int(j), int(bits[i, j])) for i, j in zip(rows[keep], columns[keep])]
    return sorted(found, key=lambda pair: (pair[2], pair))


def _look(image):
    """A unit vector (772,) of a picture at 16 x 16 pixels, its mean colour taken away, so that brightness and contrast hardly matter."""
    from PIL import Image

    values = np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
    mean = values.mean((0, 1))
    vector = np.concatenate([(values - mean).ravel(), mean / 100, [0.1]])  # the last four tell plain pictures apart, and weigh nothing elsewhere
    return vector / np.linalg.norm(vector)

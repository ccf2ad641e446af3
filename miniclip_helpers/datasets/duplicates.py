"""Pictures that are nearly the same: scaled, compressed anew, a little brighter, cropped, mirrored. Equal files are found by `fingerprint`; these are not.

Two ways. `near_duplicates` needs no model and finds whole copies. `find_copies` takes its candidates from embeddings, which know a cropped
or mirrored copy but take two coins for one, and lets the pixels decide.
"""

import io

import numpy as np

from .. import images
from ..errors import UsageError

BLOCK = 512
SIDE = 24  # pixels: what two pictures are compared at
CROPS = (1.0, 0.92, 0.84, 0.76, 0.68)  # shares of the longer and the shorter side that a copy may have kept
CANDIDATE, ALIKE = 0.8, 0.95  # cosine from which a pair is looked at, resemblance from which it counts; chosen on copies of photos
QUALITY, BRIGHTER, KEPT = 30, 1.2, 0.85  # of the copies that `copies` makes


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


def similar_pairs(embeddings, least=CANDIDATE):
    """Pairs whose cosine is at least `least`: list of (i, j, cosine), i < j, the nearest first. embeddings: (N, D) unit rows."""
    rows = np.asarray(embeddings, dtype=np.float32)
    if rows.ndim != 2:
        raise UsageError(f"expected embeddings (N, D), found the shape {rows.shape}")
    found = []
    for start in range(0, len(rows), BLOCK):
        cosines = rows[start : start + BLOCK] @ rows[start:].T
        found += [(start + int(i), start + int(j), float(cosines[i, j])) for i, j in zip(*np.nonzero(np.triu(cosines >= least, 1)))]
    return sorted(found, key=lambda pair: (-pair[2], pair))


def resemblance(first, second):
    """How alike two pictures (PIL) are, pixel by pixel, from -1 to 1: the correlation of the one with the best place in the other.

    The second may be a crop of the first or the other way round, down to two thirds of both sides, and mirrored; brightness and
    contrast do not count. Copies come near 1; two different photos of one kind seldom above 0.9.
    """
    return _resemblance(*(_sizes(picture) for picture in (first, second)))


def _sizes(picture):
    """A picture at (SIDE, SIDE) and, for each crop, the size it would have there, as it is and mirrored: ((SIDE, SIDE, 3), list of (k, k, 3))."""
    from PIL import Image

    small = [np.asarray(picture.resize((round(SIDE * share),) * 2, Image.Resampling.BOX), dtype=np.float32) for share in CROPS]
    return small[0], [mirrored for pixels in small for mirrored in (pixels, pixels[:, ::-1])]


def _resemblance(first, second):
    whole_first, whole_second = first[0], second[0]
    if whole_first.std((0, 1)).max() < 1 and whole_second.std((0, 1)).max() < 1:  # plain pictures have no shape; their colours are compared
        return 1 - float(np.abs(whole_first.mean((0, 1)) - whole_second.mean((0, 1))).mean()) / 255
    return max(_best_place(big, small) for big, others in ((whole_first, second[1]), (whole_second, first[1])) for small in others)


def _best_place(big, small):
    """The highest correlation of `small` (k, k, 3) with any place of `big` (SIDE, SIDE, 3)."""
    windows = np.lib.stride_tricks.sliding_window_view(big, small.shape[:2], axis=(0, 1))  # (places, places, 3, k, k)
    windows = windows.reshape(-1, small.size)
    windows = windows - windows.mean(1, keepdims=True)
    wanted = small.transpose(2, 0, 1).ravel()
    wanted = wanted - wanted.mean()
    lengths = np.linalg.norm(windows, axis=1) * np.linalg.norm(wanted)
    return min(1.0, float((windows @ wanted / np.maximum(lengths, 1e-6)).max()))


def find_copies(dataset, embeddings, least=CANDIDATE, alike=ALIKE):
    """Near-duplicates with cropped and mirrored ones: list of (i, j, resemblance), i < j, the most alike first.

    embeddings: (N, D) unit rows of the dataset's pictures. A pair is looked at when its cosine is at least `least`, or when `near_duplicates`
    finds it (a copy that is much brighter can leave its place in the space); it counts when its `resemblance` is at least `alike`.
    """
    if len(embeddings) != len(dataset):
        raise UsageError(f"expected one embedding per picture, found {len(embeddings)} embeddings and {len(dataset)} pictures")
    candidates = {pair[:2] for pair in similar_pairs(embeddings, least) + near_duplicates(dataset)}
    rows = sorted({row for pair in candidates for row in pair})
    sizes = dict(zip(rows, map(_sizes, dataset.images(rows)), strict=True))
    scored = [(i, j, _resemblance(sizes[i], sizes[j])) for i, j in candidates]
    return sorted((pair for pair in scored if pair[2] >= alike), key=lambda pair: (-pair[2], pair))


def group_copies(count, pairs):
    """A label per row, 0 to count - 1: rows that a chain of pairs joins share one, the smallest of their numbers. For splits: `split_rows(groups=...)`.

    pairs: (i, j, ...) each.
    """
    label = list(range(count))

    def first(row):
        while label[row] != row:
            row = label[row]
        return row

    for i, j, *_ in pairs:
        low, high = sorted((first(i), first(j)))
        label[high] = low
    return [first(row) for row in range(count)]


def copies(picture):
    """Copies of a picture (PIL RGB) as they come about: {"smaller", "saved again", "brighter", "cropped", "mirrored"}, PIL RGB each."""
    from PIL import Image, ImageEnhance, ImageOps

    jpeg, (width, height) = io.BytesIO(), picture.size
    picture.save(jpeg, "JPEG", quality=QUALITY)
    left, top = round(width * (1 - KEPT) * 0.4), round(height * (1 - KEPT) * 0.6)
    return {
        "smaller": picture.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BOX),
        "saved again": images.open_image(jpeg.getvalue()),
        "brighter": ImageEnhance.Brightness(picture).enhance(BRIGHTER),
        "cropped": picture.crop((left, top, left + max(1, round(width * KEPT)), top + max(1, round(height * KEPT)))),
        "mirrored": ImageOps.mirror(picture),
    }

"""Fashion Product Images (Small): about 44,000 products, a picture and a name each. From the hub; the user's own folder is read by `formats`."""

from .. import downloads, runtime
from ..errors import DataError, OfflineError
from .parquet import from_columns

HUB_NAME = "ashraq/fashion-product-images-small"
REVISION = "3859c76db2f6f3d3b9a3863345e3ccdbff75879d"  # its data are those of bd09c69; what came later is other text about them
BY_HAND = "or give the folder of your own copy: one with styles.csv and images/"


def load_fashion():
    """The dataset "fashion" out of the hub's cache, or off the hub: captions are the column productDisplayName, the others are kept.

    Products without a name or picture are left out and listed in `.problems`. Raises `OfflineError` when it is not on this machine
    and the network is switched off or away.
    """
    import datasets
    from huggingface_hub.constants import ENDPOINT

    why = "the network is switched off (MINICLIP_OFFLINE or HF_HUB_OFFLINE)" if runtime.offline() else None
    if not why and not downloads.reachable(ENDPOINT):
        why = "the hub cannot be reached"
    was = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = was or bool(why)  # then it looks into its cache at once, instead of trying for half a minute
    try:
        table = datasets.load_dataset(HUB_NAME, split="train", revision=REVISION)
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError and FileNotFoundError are OSErrors
        raise OfflineError(f"fashion is not in the cache of the library datasets, and {why or str(error).splitlines()[0]}. Fetch it once while connected: "
                           f"python -c \"import datasets; datasets.load_dataset('{HUB_NAME}', revision='{REVISION}')\"; {BY_HAND}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = was
    if not {"image", "productDisplayName"} <= set(table.column_names):
        raise DataError(f"{HUB_NAME}: expected the columns image and productDisplayName, found {', '.join(table.column_names)}")
    columns = table.cast_column("image", datasets.Image(decode=False))[:]
    return without_gaps(columns)


def without_gaps(columns):
    """The products that have a picture and a name; the others are listed in `.problems`."""
    cells = list(zip(columns["image"], columns["productDisplayName"], columns["id"]))
    problems = [f"product {id_}: no {'picture' if said else 'name'}" for image, said, id_ in cells if not (image and image.get("bytes") and said)]
    keep = [row for row, (image, said, _) in enumerate(cells) if image and image.get("bytes") and said]
    dataset = from_columns({key: [values[row] for row in keep] for key, values in columns.items()}, "image", "fashion", "fashion")
    dataset.problems += problems
    return dataset

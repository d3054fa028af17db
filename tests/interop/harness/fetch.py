"""Packages, downloaded once to a cache outside the repository, as pinned by lock files."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import fcntl
import hashlib
import http.client
import os
from pathlib import Path
import shutil
import tempfile
import time
import urllib.request

from harness.expect import Failed

TRIES = 3


def default_cache() -> Path:
    """Returns the default directory for packages."""
    named = os.environ.get("HIGHWATER_INTEROP_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "highwater-interop"


class Cache:
    """A cache of directories. A directory exists only if it is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, name: str, lock: bytes, fill: Callable[[Path], None]) -> Path:
        """Returns the directory that `fill` creates for the lock file's content `lock`. Creates it if it is not cached.

        It is filled under a temporary name and renamed at the end, so that a failed download leaves no incomplete directory.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        done = self.root / f"{name}-{hashlib.sha256(lock).hexdigest()[:12]}"
        with open(self.root / f"{done.name}.lock", "w", encoding="ascii") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            if done.is_dir():
                return done
            filling = Path(tempfile.mkdtemp(prefix=f"{done.name}.", dir=self.root))
            try:
                fill(filling)
                filling.rename(done)
            finally:
                shutil.rmtree(filling, ignore_errors=True)
        return done

    def files(self, name: str, lock: Path, base: str) -> Path:
        """Returns a directory with the files in a `sha256sum` list, downloaded from their paths below the URL `base`."""
        text = lock.read_text()
        wanted = [line.split(maxsplit=1) for line in text.splitlines()]

        def fill(into: Path) -> None:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda row: download(f"{base}/{row[1]}", row[0], into / Path(row[1]).name), wanted))

        return self.directory(name, text.encode(), fill)


def download(url: str, sha256: str, to: Path) -> None:
    """Downloads a file and checks its digest. Retries, as registries fail occasionally."""
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=120) as answer, open(to, "wb") as file:
                shutil.copyfileobj(answer, file)
            break
        except (OSError, http.client.HTTPException) as error:
            if not left:
                raise Failed(f"cannot download {url}: {error}") from None
            time.sleep(1)
    with open(to, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise Failed(f"{url}: expected SHA-256 {sha256}, found {found}")

"""Small file systems, to be filled."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import shutil
import subprocess
import time

from harness.context import Context
from harness.expect import Failed, Skipped


@contextmanager
def small_disk(ctx: Context, size: int) -> Iterator[Path]:
    """Mounts an ext4 file system of so many bytes, and unmounts it at the end. Skips the case where that is not possible."""
    if os.geteuid() != 0:
        raise Skipped("mounting a small file system requires root privileges")
    if shutil.which("mkfs.ext4") is None:
        raise Skipped("mkfs.ext4 is not in the PATH (Debian: apt-get install e2fsprogs)")
    image, mount = ctx.scratch / "disk", ctx.directory("mount")
    with open(image, "wb") as file:
        file.truncate(size)
    for argv in (["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, mount]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Skipped(f"cannot mount a small file system: {done.stderr.strip()}")
    try:
        yield mount
    except BaseException:
        # What uses the file system has to end before it can be unmounted.
        ctx.end()
        raise
    finally:
        _unmount(mount)


def _unmount(mount: Path) -> None:
    """Retries, as the kernel closes a process's files shortly after its end."""
    for _ in range(100):
        if subprocess.run(["umount", mount], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise Failed(f"cannot unmount {mount}: it is busy")

"""Opening and replacing files: what goes wrong is said in one line, and a killed run leaves no half file."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path

from anomri.errors import BadInput

NIFTI = (".nii.gz", ".nii")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which replaces `path` if the block ends well and vanishes if not.

    Raises `BadInput` where there is no space or no permission.
    """
    path = Path(path)
    if not path.name:
        raise BadInput(f"cannot write '{path}': it is a folder; name a file")
    ends = next((e for e in NIFTI if path.name.endswith(e)), path.suffix)
    part = path.with_name(f".{path.name.removesuffix(ends)}.{secrets.token_hex(4)}.part{ends}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise _said(error, path, "write") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[Path]:
    """Says in one line what keeps a file or folder from being read; raises `BadInput`."""
    path = Path(path)
    try:
        yield path
    except MemoryError as error:
        raise BadInput(f"'{path}' does not fit into memory; check the size that its header states") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"'{path}' is cut short or damaged ({short(error)}); copy it again") from error
    except OSError as error:
        raise _said(error, path, "read") from error


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _said(error: OSError, path: Path, doing: str) -> BadInput:
    why = {
        errno.ENOSPC: "no space left on the device; free some and run the same command again, what is done is kept",
        errno.EDQUOT: "disk quota exceeded; free some space and run the same command again, what is done is kept",
        errno.EACCES: "permission denied; change its rights or choose another place",
        errno.EPERM: "permission denied; change its rights or choose another place",
        errno.EROFS: "the file system is read-only; choose another place",
        errno.ENOENT: "no such file or folder; check the path",
        errno.ENOTDIR: "a part of the path is a file, not a folder",
        errno.EISDIR: "it is a folder, not a file",
    }.get(error.errno or 0, error.strerror or type(error).__name__)
    return BadInput(f"cannot {doing} '{path}': {why}")


def sha256(path: str | Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    with reading(path) as file, file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

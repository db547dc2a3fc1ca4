"""Storage at a URL: whole objects by name, over pyarrow's file systems, which come with ray[tune].

pyarrow is imported when an object is first asked for, so whoever keeps runs in a folder never pays for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from kdsearch.errors import StorageError
from kdsearch.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
"""Object stores, in which a put shows the whole object or none of it."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_YOUNG = 2_000_000_000  # ns: stores stamp objects to the second, so two versions this near may bear one stamp


def is_url(storage: str | Path) -> bool:
    """Whether the storage is at a URL; `file://` is a folder like any other."""
    scheme = _URL.match(str(storage))
    return scheme is not None and scheme[1].lower() != "file"


@dataclass(frozen=True)
class Entry:
    """What a listing says of an object."""

    size: int
    changed: int
    """Nanoseconds since the epoch, by the store's clock."""


@dataclass(frozen=True)
class Remote:
    """The objects below a folder of a store. Whatever goes wrong there is a StorageError of one sentence.

    Credentials are the environment's (AWS_ACCESS_KEY_ID, ~/.aws, GOOGLE_APPLICATION_CREDENTIALS, a role of the
    machine …), never part of the URL; an endpoint is (`?endpoint_override=HOST:PORT&scheme=http`), or AWS_ENDPOINT_URL.
    """

    url: str
    under: str = ""
    """The folder below the URL."""

    @classmethod
    def at(cls, url: str) -> Remote:
        """The store at a URL that a person gave. Raises StorageError for one that cannot be a storage."""
        parts = urlsplit(url)
        if parts.scheme.lower() not in SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise StorageError(f"storage {url!r}: kdsearch writes to {known} and folders; mount it and give its path")
        if parts.password or (parts.username and not parts.scheme.lower().startswith("abfs")):  # abfs: its container
            where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
            raise StorageError(f"storage {where!r}: keep keys out of the URL, give them by the environment")
        if not parts.netloc:
            raise StorageError(f"storage {url!r} names no bucket")
        if parts.scheme.lower() == "s3":
            parts = parts._replace(query=_with_endpoint(parts.query))
        return cls(parts._replace(path=parts.path.rstrip("/")).geturl())

    def __truediv__(self, folder: str) -> Remote:
        return Remote(self.url, f"{self.under}/{folder}".strip("/"))

    def __str__(self) -> str:
        """The place as a person knows it, without the query."""
        parts = urlsplit(self.url)
        return "/".join(filter(None, (f"{parts.scheme}://{parts.netloc}{parts.path}", self.under)))

    def __reduce__(self) -> tuple[type[Remote], tuple[str, str]]:
        return type(self), (self.url, self.under)  # each process opens the store with credentials of its own

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """pyarrow's file system and the path of this folder in it."""
        from pyarrow import fs

        url = self.url
        if (
            url.lower().startswith("s3:") and "allow_delayed_open=" not in url
        ):  # small objects in one request, not three
            url += ("&" if "?" in url else "?") + "allow_delayed_open=true"
        filesystem, path = fs.FileSystem.from_uri(url)
        return filesystem, "/".join(filter(None, (path.rstrip("/"), self.under)))

    def check(self, *, writable: bool = False) -> None:
        """Raises StorageError where there is no such bucket, or it may not be read (and written)."""
        with self._telling("reached"):
            filesystem, path = self._opened
            bucket = path.split("/")[0]
            if not _is_there(filesystem.get_file_info(bucket)):
                raise StorageError(f"{self} cannot be used: there is no bucket {bucket!r}")
        if writable:
            probe = f".probe-{os.urandom(6).hex()}"
            self.write(probe, b"")
            self.delete(probe)

    def entries(self, *, deep: bool = True) -> dict[str, Entry]:
        """The objects below this folder, or right in it, by name."""
        from pyarrow import fs

        with self._telling("listed"):
            filesystem, path = self._opened
            found = filesystem.get_file_info(fs.FileSelector(path, recursive=deep, allow_not_found=True))
        files = (info for info in found if info.type == fs.FileType.File)
        named = ((info.path[len(path) :].lstrip("/"), info) for info in files)
        return {name: Entry(info.size, info.mtime_ns or 0) for name, info in named if _is_plain(name)}

    def folders(self) -> list[str]:
        """The names of the folders right in this one."""
        from pyarrow import fs

        with self._telling("listed"):
            filesystem, path = self._opened
            found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""
        with self._telling("read"):
            filesystem, path = self._opened
            try:
                with filesystem.open_input_stream(f"{path}/{name}") as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Put an object in the place of what was there."""
        with self._telling("written"):
            filesystem, path = self._opened
            with filesystem.open_output_stream(f"{path}/{name}") as stream:
                stream.write(content)

    def delete(self, name: str) -> None:
        """Remove an object; harmless where there is none."""
        with self._telling("written"):
            filesystem, path = self._opened
            with contextlib.suppress(FileNotFoundError):
                filesystem.delete_file(f"{path}/{name}")

    def remove(self) -> None:
        """Remove this folder with all that is in it."""
        with self._telling("written"):
            filesystem, path = self._opened
            with contextlib.suppress(FileNotFoundError):
                filesystem.delete_dir(path)

    def pull(self, folder: Path, wanted: Callable[[str], bool], *, deep: bool = True) -> set[str]:
        """Bring what is wanted into a folder, each file whole; the names that lie there now.

        What has an object's size and time is not read again.
        """
        entries = {name: entry for name, entry in self.entries(deep=deep).items() if wanted(name)}
        now = time.time_ns()
        for name, entry in entries.items():
            path = folder / name
            if _stamp(path) == (entry.size, entry.changed):
                continue
            content = self.read(name)
            if content is None:
                continue  # gone since it was listed
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
            if now - entry.changed > _YOUNG and len(content) == entry.size:
                os.utime(path, ns=(entry.changed, entry.changed))
        return set(entries)

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Inside, pyarrow's errors (OSError, ValueError, NotImplementedError) become one sentence."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(f"{self} cannot be {what}: {_reason(error)}") from error


def _is_there(info: Any) -> bool:
    from pyarrow import fs

    return bool(info.type != fs.FileType.NotFound)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _is_plain(name: str) -> bool:
    """Whether a name stays inside of a folder, and is not hidden: who may write into a store may name things."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "\0" not in name and not any(part.startswith((".", "/")) for part in parts)


def _with_endpoint(query: str) -> str:
    """The query of an s3 URL with the environment's endpoint: workers get the URL, not this machine's environment."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint or "endpoint_override=" in query:
        return query
    where = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    added = urlencode({"endpoint_override": where.netloc, "scheme": where.scheme})
    return f"{query}&{added}".lstrip("&")


def _reason(error: Exception) -> str:
    """What pyarrow says, without its own preface."""
    text = " ".join(str(error).split()) or type(error).__name__
    found = re.search(r"(?:AWS Error|Azure Error|GCS) ?(\w+)? ?(?:during \w+ operation)?: (.*)", text)
    kind, said = (found[1] or "", found[2]) if found else ("", text)
    said = re.sub(r"^curlCode: \d+, ", "", said).partition(";")[0].rstrip(".")
    if kind in ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID"):
        return f"access is denied ({kind}), check the credentials in the environment"
    return f"{said[:300]} ({kind})" if kind else said[:300]

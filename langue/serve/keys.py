"""API keys: reads a file of keys, or LANGUE_API_KEYS; checks whether a key is valid, and which
calls have the same owner.

Keys are stored as SHA-256 digests, and comparisons take constant time. A file may contain digests
in place of keys: `sha256:` and 64 hexadecimal digits.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path

from langue.errors import SettingsError
from langue.files import unreadable

VARIABLE = "LANGUE_API_KEYS"
LEAST = 8  # minimum length of a key
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


class Keys:
    """The accepted API keys; without any, no key is required."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """keys: in clear text, or as digests."""
        digests = dict.fromkeys(_digest_of(key) for key in keys)
        self._digests = list(digests)

    def __len__(self) -> int:
        return len(self._digests)

    def owner(self, key: str) -> str | None:
        """Return an identifier of the key's owner that does not reveal the key; None if it is
        invalid.
        """
        given = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found: bytes | None = None
        for digest in self._digests:  # compare with all, so that the time reveals nothing
            if hmac.compare_digest(digest, given):
                found = digest
        return None if found is None else hashlib.sha256(found).hexdigest()[:12]


def read_keys(file: str | Path | None) -> Keys:
    """Return the keys in a file, one per line except for blank lines and # comments, and in the
    environment; raise SettingsError for invalid ones.
    """
    found = []
    if file is not None:
        found += _of_file(Path(file))
    given = os.environ.get(VARIABLE)
    if given is not None:
        for key in given.split(","):
            _check(key.strip(), VARIABLE)
            found.append(key.strip())
    return Keys(found)


def _of_file(file: Path) -> list[str]:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        what = "there is no such file of API keys"
        raise SettingsError(what, where=str(file), do="make it, with one key a line") from None
    except OSError as error:
        raise unreadable(error, str(file), SettingsError) from error
    except UnicodeDecodeError:
        raise SettingsError("the keys are not UTF-8", where=str(file)) from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        key = line.strip()
        if key and not key.startswith("#"):
            _check(key, f"{file}, line {number}")
            found.append(key)
    if not found:
        raise SettingsError("there is no key in it", where=str(file), do="write one a line")
    return found


def _check(key: str, where: str) -> None:
    """Raise SettingsError if a key cannot be sent in a header, or is easy to guess; never shows the
    key.
    """
    if key.startswith("sha256:"):
        if not _DIGEST.fullmatch(key):
            raise SettingsError("sha256: is not followed by 64 hexadecimal digits", where=where)
        return
    if len(key) < LEAST or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            f"a key has fewer than {LEAST} characters, or others than printable ASCII",
            where=where,
            do='make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )


def _digest_of(key: str) -> bytes:
    found = _DIGEST.fullmatch(key)
    if found:
        return bytes.fromhex(found.group(1))
    return hashlib.sha256(key.encode("utf-8")).digest()

"""Public names of images behind URLs: host and path, without what may be secret.

A query often holds a signature, and what comes before ``@`` a password. Two URLs that differ in
nothing but an honest part of the query are told apart by a digest of that part.
"""

from __future__ import annotations

import posixpath
import re
from hashlib import blake2b

from blip2cli.sources.base import name_below
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.opening import is_remote, protocol_of

_WEB = frozenset({"http", "https", "ftp", "sftp", "webdav", "webdavs"})
# Parameters that sign a request, or say until when it is allowed: of S3, Google, CloudFront, Azure.
_SIGNING = re.compile(
    r"x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|signature|expires|expiry|"
    r"sig|se|sip|sk[a-z]+|sp|spr|sr|srt|ss|st|sv|api[_-]?key|.*(?:token|secret|password|hmac)",
    re.IGNORECASE,
)


def url_name(url: str, base: str = "") -> str:
    """The name of what is at ``url``: below the URL ``base``, or from the host on.

    Without protocol, user, password, query and fragment.
    """
    name = name_below(_without_query(url), base)
    if not is_remote(name):
        return name
    # A password that holds a slash, as S3's do, is no port.
    place = re.sub(r"^[^/@]*:(?!\d*(?:/|$))[^@]*@", "", name.partition("://")[2])
    host, slash, path = place.partition("/")
    user = host.rpartition("@")[0]
    if protocol_of(url) in _WEB:
        host = host.removeprefix(f"{user}@")
    return host + slash + path


def public_name(path: str) -> str:
    """The name for a path that stands in a list or a table and may be a URL."""
    return url_name(path) if is_remote(path) else path


def same_place(one: str, other: str) -> bool:
    """Whether two paths or URLs name the same thing, whoever signed them."""
    if one == other or not (is_remote(one) and is_remote(other)):
        return one == other
    return (url_name(one), unsigned_query(one)) == (url_name(other), unsigned_query(other))


def unsigned_query(url: str) -> str:
    """The parameters of ``url`` that are no part of a signature, in their order."""
    query = url[len(_without_query(url)) :].partition("#")[0].removeprefix("?")
    honest = (p for p in query.split("&") if p and not _SIGNING.fullmatch(p.partition("=")[0]))
    return "&".join(honest)


class UrlNames:
    """Names of the URLs of one list, each different from those before it."""

    def __init__(self) -> None:
        self._taken = HashSet()
        self._first = HashSet()  # names with the unsigned query they were taken with

    def unique(self, name: str, url: str) -> str:
        """``name``, with a digest of the unsigned query if another URL has it already."""
        query = unsigned_query(url)
        if self._taken.add(name):
            self._first.add(f"{name}?{query}")
        elif f"{name}?{query}" not in self._first:
            digest = blake2b(query.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
            stem, suffix = posixpath.splitext(name)
            return f"{stem}.{digest}{suffix}"
        return name


def _without_query(url: str) -> str:
    if protocol_of(url) in _WEB:
        return re.split(r"[?#]", url, maxsplit=1)[0]
    # Elsewhere a question mark may be part of a key.
    path, _, query = url.partition("?")
    return path if "=" in query else url

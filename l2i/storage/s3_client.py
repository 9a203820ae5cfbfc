"""A client of any S3-compatible store, and what goes wrong with it as sentences.

`ask` does something with it, and again while the store is away.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from l2i.errors import StoreError, UsageError
from l2i.storage.patience import patiently

FILES, PIECES = 8, 2
"""At once: files, and pieces of a large one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and a prefix in it, without slashes at its ends.

    >>> str(Location.parse("s3://bucket/a/b/"))
    's3://bucket/a/b'
    >>> Location.parse("s3://bucket") / "c" / ""
    Location(bucket='bucket', prefix='c')
    """

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read an address.

        Raises
        ------
        UsageError
            It names no bucket.
        """
        parts = urlsplit(text)
        if parts.scheme.lower() != "s3" or not parts.netloc or "@" in parts.netloc:
            # Without what stands before an @: it may be a key.
            shown = text if "@" not in text else f"s3://***@{text.rpartition('@')[2]}"
            raise UsageError(f"{shown!r} is no S3 address: it must be s3://bucket/prefix.")
        # Not parts.path, which would lose what follows a '?' or a '#', both fine in a key.
        rest = text.split("://", 1)[1].partition("/")[2]
        return cls(parts.netloc, rest.strip("/"))

    def __truediv__(self, name: str) -> Location:
        return Location(self.bucket, "/".join(filter(None, (self.prefix, name))))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


_lock = threading.Lock()
_clients: dict[tuple[str, ...], Any] = {}

_SETTINGS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
    *("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
)


def client() -> Any:
    """A client for what the environment says now; clients may be shared by threads."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, InvalidRegionError

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    key = (endpoint or "", *(os.environ.get(name, "") for name in _SETTINGS))
    with _lock:
        if key in _clients:
            return _clients[key]
        session = boto3.session.Session()
        try:
            session.get_credentials()
        except BotoCoreError:
            raise  # Some are an OSError or a ValueError, too.
        except (OSError, ValueError) as error:
            # A program that is to print them may be absent, or print something else.
            raise StoreError(
                f"AWS's keys cannot be found ({_first_line(error)}): mend the credential_process "
                "of this profile."
            ) from error
        try:
            _clients[key] = session.client(
                "s3",
                endpoint_url=endpoint or None,
                region_name=os.environ.get("AWS_DEFAULT_REGION")
                or os.environ.get("AWS_REGION")
                or ("us-east-1" if endpoint else None),
                config=Config(
                    connect_timeout=10,
                    read_timeout=60,
                    # Ours wait longer, and know what is worth another try.
                    retries={"mode": "standard", "total_max_attempts": 2},
                    max_pool_connections=FILES * PIECES,
                    # Stores that are not Amazon's stumble over checksums that newer clients add.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except InvalidRegionError as error:
            raise StoreError(f"{_first_line(error)}: mend AWS_DEFAULT_REGION.") from error
        except ValueError as error:
            wrong = f"{endpoint!r} is" if endpoint else f"{_first_line(error)};"
            raise StoreError(
                f"{wrong} no address of an S3-compatible store: mend AWS_ENDPOINT_URL_S3, which "
                "begins with http:// or https://."
            ) from error
        return _clients[key]


def error_code(error: BaseException) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_hopeless(error: BaseException) -> bool:
    """Whether an error of S3's, or of AWS's settings, is one that no waiting mends."""
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, BotoCoreError | ClientError) and not _may_pass(error)


def _may_pass(error: BaseException) -> bool:
    """Whether another try may end otherwise: the network, or the store, is at fault."""
    from botocore import exceptions as e

    if isinstance(error, e.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        again = status in (408, 409, 429) or error_code(error) == "RequestTimeout"
        return again or not 400 <= status < 500
    if isinstance(error, e.EndpointConnectionError) and _unknown_region():
        return False
    return isinstance(
        error,
        e.HTTPClientError
        | e.ConnectionError
        | e.IncompleteReadError
        | e.MetadataRetrievalError
        | ConnectionError,
    )


def _unknown_region() -> str:
    """The region that Amazon's address was made of, where Amazon has none of that name."""
    import boto3

    meta = client().meta
    session = boto3.session.Session()
    if "amazonaws.com" not in meta.endpoint_url or any(
        meta.region_name in session.get_available_regions("s3", partition)
        for partition in session.get_available_partitions()
    ):
        return ""
    return str(meta.region_name)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".: ") or type(error).__name__


@contextmanager
def _sentences(place: Location, doing: str) -> Iterator[None]:
    """Turn what boto3 raises into one sentence, without keys or signatures."""
    from botocore import exceptions as e

    try:
        yield
    except e.ClientError as error:
        code = error_code(error)
        if code in ("NoSuchBucket",) or (code == "404" and not place.prefix):
            text = f"There is no bucket {place.bucket!r}: make it, or mend the address."
        elif code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId"):
            text = (
                f"The store refuses the keys for {place}: mend AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            )
        elif code in ("AccessDenied", "403", "AllAccessDisabled"):
            text = f"These keys may not {doing} {place}: ask who owns the bucket for the right to."
        elif code in ("ExpiredToken", "RequestExpired"):
            text = f"The keys for {place} have expired: renew them."
        elif code in ("PreconditionFailed", "412"):
            text = f"{place} changed while it was read: give the same command again."
        elif code in ("NoSuchKey", "404"):
            text = f"There is nothing at {place}."
        else:
            text = f"{place} could not be reached to {doing} it ({code or 'no reason given'})."
        raise StoreError(text) from error
    except (e.NoCredentialsError, e.PartialCredentialsError) as error:
        raise StoreError(
            f"There are no keys for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE."
        ) from error
    except e.ProfileNotFound as error:
        raise StoreError(f"{error}: mend AWS_PROFILE.") from error
    except (e.SSOError, e.TokenRetrievalError, e.CredentialRetrievalError) as error:
        raise StoreError(
            f"There are no valid keys for {place} ({_first_line(error)}): log in again, or mend "
            "how AWS_PROFILE gets its keys."
        ) from error
    except (e.ConfigParseError, e.ConfigNotFound, e.InvalidConfigError) as error:
        raise StoreError(f"{_first_line(error)}: mend this file of AWS's settings.") from error
    except e.BotoCoreError as error:
        if isinstance(error, e.EndpointConnectionError) and (region := _unknown_region()):
            raise StoreError(
                f"There is no AWS region {region!r}: mend AWS_DEFAULT_REGION, or the profile's."
            ) from error
        first = _first_line(error)
        raise StoreError(f"{place} could not be reached to {doing} it ({first}).") from error


def ask(place: Location, doing: str, work: Callable[[], T], patience_s: float | None = None) -> T:
    """Do it, and again while the store is away; what goes wrong is one sentence."""
    with _sentences(place, doing):
        return patiently(
            work,
            _may_pass,
            lambda error: f"The store of s3://{place.bucket} is away ({_first_line(error)})",
            patience_s,
        )

"""Clients of AWS, and its errors as sentences.

Keys and the region are found as all AWS tools find them; ``AWS_ENDPOINT_URL`` names a server
that stands in for AWS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from l2i.errors import LaunchError

_KEYS = {
    *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException"),
    *("SignatureDoesNotMatch", "AuthFailure", "IncompleteSignature", "InvalidAccessKeyId"),
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden"}


def region_of(place: str = "") -> str:
    """The region asked for, or else the environment's or the profile's.

    Raises
    ------
    LaunchError
        Neither says.
    """
    import boto3

    with aws_errors("say its region"):
        region = place or boto3.session.Session().region_name or os.environ.get("AWS_REGION", "")
    if not region:
        raise LaunchError("No AWS region is named: set AWS_DEFAULT_REGION, or give --region.")
    return str(region)


def client(service: str, region: str) -> Any:
    """A client of one service; errors of its calls are for `aws_errors`."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 5}
    )
    try:
        with aws_errors("begin"):
            return boto3.session.Session().client(service, region_name=region, config=config)
    except ValueError as error:
        raise LaunchError(
            f"{error}; mend AWS_ENDPOINT_URL, which begins with http:// or https://."
        ) from error


def listed(service: Any, operation: str, key: str, **how: Any) -> list[dict[str, Any]]:
    """What all pages of an operation have under a key; its errors are for `aws_errors`."""
    pages = service.get_paginator(operation).paginate(**how)
    return [each for page in pages for each in page[key]]


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Turn what boto3 raises into one sentence, without keys.

    Parameters
    ----------
    doing : str
        As in "AWS did not <doing>".
    """
    from botocore import exceptions as e

    try:
        yield
    except e.ClientError as error:
        told = error.response.get("Error", {})
        code, message = str(told.get("Code", "")), str(told.get("Message", "")).strip().rstrip(".")
        # Servers that stand in for AWS may put the word into the message alone.
        if code in _KEYS or any(f"<Code>{word}<" in message for word in _KEYS):
            text = (
                "AWS refuses the keys: mend AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE."
            )
        elif code in _EXPIRED:
            text = "The AWS keys have expired: renew them (aws sso login, say)."
        elif code in _DENIED:
            action = re.search(r"perform: ([\w:-]+)", message)
            right = action[1] if action else error.operation_name
            text = (
                f"These AWS keys may not do {right}: 'l2i batch policy' prints what is needed, for "
                "who administers the account."
            )
        else:
            text = f"AWS did not {doing}: {message or code}."
        raise LaunchError(text) from error
    except (e.NoCredentialsError, e.PartialCredentialsError) as error:
        raise LaunchError(
            "There are no AWS keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE."
        ) from error
    except e.ProfileNotFound as error:
        raise LaunchError(f"{error}: mend AWS_PROFILE.") from error
    except (e.ConfigParseError, e.ConfigNotFound, e.InvalidConfigError) as error:
        raise LaunchError(f"{error}: mend this file of AWS's settings.") from error
    except (e.InvalidRegionError, e.NoRegionError) as error:
        raise LaunchError(f"{str(error).rstrip('.')}: mend AWS_DEFAULT_REGION.") from error
    except e.ParamValidationError as error:
        raise LaunchError(f"AWS would not {doing}: {' '.join(str(error).split())}.") from error
    except (e.BotoCoreError, e.HTTPClientError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise LaunchError(f"AWS could not be reached to {doing} ({first}).") from error

"""Files that are whole or absent, on a disk and in S3-compatible stores.

=========  =======================================================================
``files``  writes that are whole or absent, locks that die with their holder,
           archives that stay inside
``s3``     ``s3://bucket/prefix``: list, fetch, send; the only code that speaks S3
=========  =======================================================================
"""

from l2i.storage.files import (
    MARK,
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    disk_usage,
    file_lock,
    format_bytes,
    is_inside,
    mark_folder,
    safe_extract,
    store_errors,
)
from l2i.storage.s3 import is_s3

__all__ = [
    "MARK",
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_text",
    "disk_usage",
    "file_lock",
    "format_bytes",
    "is_inside",
    "is_s3",
    "mark_folder",
    "safe_extract",
    "store_errors",
]

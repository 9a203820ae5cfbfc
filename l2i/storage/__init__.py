"""Files that are whole or absent, on a disk and in S3-compatible stores.

=============  =======================================================================
``files``      writes that are whole or absent, archives that stay inside
``locks``      locks that die with their holder
``outputs``    folders of results, and which run gave them
``patience``   waiting for a store that is away, and saying so
``s3``         ``s3://bucket/prefix``: list, fetch, send; the only code that speaks S3
``s3_client``  its client, and what goes wrong with it as sentences
=============  =======================================================================
"""

from l2i.storage.files import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    disk_errors,
    disk_usage,
    existing,
    format_bytes,
    is_inside,
    safe_extract,
    write_csv,
    write_json,
)
from l2i.storage.locks import FileLock, file_lock
from l2i.storage.outputs import (
    MARK,
    is_output,
    local_place,
    make_output,
    mark_output,
    refuse_other_run,
)
from l2i.storage.s3 import is_s3

__all__ = [
    "MARK",
    "FileLock",
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_text",
    "disk_errors",
    "disk_usage",
    "existing",
    "file_lock",
    "format_bytes",
    "is_inside",
    "is_output",
    "is_s3",
    "local_place",
    "make_output",
    "mark_output",
    "refuse_other_run",
    "safe_extract",
    "write_csv",
    "write_json",
]

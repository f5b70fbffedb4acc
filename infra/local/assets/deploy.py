"""Run the AWS SAM CLI.

It compresses the functions' packages, debug binaries of 50 MB each, at zlib's default level: most of the time of a
deployment. The fastest level packs them to nearly the same size.
"""

import zipfile

open_archive = zipfile.ZipFile.__init__


def open_archive_fast(archive, *rest, **more):
    open_archive(archive, *rest, **{**more, "compresslevel": 1})


zipfile.ZipFile.__init__ = open_archive_fast

from samcli.cli.main import cli  # noqa: E402  (must come after the switch)

cli(prog_name="sam")

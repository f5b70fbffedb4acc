"""Run the AWS SAM CLI.

It compresses the functions' packages, debug binaries of 50 MB each, at zlib's default level: most of the time of a
deployment. The fastest level packs them to nearly the same size.
"""

import zipfile

write = zipfile.ZipFile.writestr


def write_fast(archive, *rest, **more):
    write(archive, *rest, **{**more, "compresslevel": 1})


# The level of the archive would not do: a file that comes with its own ZipInfo ignores it.
zipfile.ZipFile.writestr = write_fast

from samcli.cli.main import cli  # noqa: E402  (must come after the switch)

cli(prog_name="sam")

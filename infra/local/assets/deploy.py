"""Run the AWS SAM CLI.

It compresses the functions' packages, debug binaries of 50 MB each, at zlib's default level: most of the time of a
deployment. The fastest level packs them to nearly the same size. And it reads each template many times, with PyYAML's
parser in Python. The one in C builds the same values in a tenth of the time.
"""

import zipfile

import yaml

# Missing only where PyYAML was built without libyaml.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

write = zipfile.ZipFile.writestr


def write_fast(archive, *rest, **more):
    write(archive, *rest, **{**more, "compresslevel": 1})


# The level of the archive would not do: a file that comes with its own ZipInfo ignores it.
zipfile.ZipFile.writestr = write_fast

from samcli.cli.main import cli  # noqa: E402  (must come after the switch)

cli(prog_name="sam")

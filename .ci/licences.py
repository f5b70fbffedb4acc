"""Print the licences of all that is compiled into the functions: .ci/licences.py TARGET FUNCTION …

First each crate with the licence that it declares, then the text of every licence file in its package, C sources that it
carries included. Equal texts are printed once.
"""

import json
import pathlib
import re
import subprocess
import sys

FILE = re.compile(r"(licen[cs]es?|copying|copyright|notice|unlicense)([-._].*)?$", re.IGNORECASE)
# Code that has a licence's name.
CODE = {".c", ".h", ".go", ".pl", ".py", ".rs", ".sh"}


def compiled(metadata, functions):
    """The crates that the functions need at run time or to be built; what only tests need is not among them."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [package["id"] for package in metadata["packages"] if package["name"] in functions]
    found = set()
    while waiting:
        crate = waiting.pop()
        if crate not in found:
            found.add(crate)
            needed = (dep for dep in nodes[crate]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"]))
            waiting.extend(dep["pkg"] for dep in needed)
    # A package without a source is one of ours.
    return [package for package in metadata["packages"] if package["id"] in found and package["source"]]


def texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    files = (path for path in folder.rglob("*") if FILE.match(path.name) and path.suffix not in CODE and path.is_file())
    return {path.read_text(errors="replace").strip() for path in files}


target, *functions = sys.argv[1:]
command = ["cargo", "metadata", "--locked", "--format-version=1", "--features=ingest/tls", f"--filter-platform={target}"]
crates = sorted(compiled(json.loads(subprocess.check_output(command)), functions), key=lambda crate: crate["id"])
if not crates:
    sys.exit(f"no crates were found for {functions}")
carriers = {}
print("Compiled into the functions, with the licence that each crate declares:\n")
print("Rust's standard library: MIT OR Apache-2.0")
for crate in crates:
    name = f"{crate['name']} {crate['version']}"
    print(f"{name}: {crate['license'] or 'see its file below'}")
    for text in texts(crate):
        carriers.setdefault(text, []).append(name)
for text, names in sorted(carriers.items(), key=lambda carrier: (carrier[1], carrier[0])):
    print("\n" + "=" * 100 + "\n" + ", ".join(names) + "\n\n" + text)

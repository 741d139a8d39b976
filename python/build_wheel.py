#!/usr/bin/env python3
"""Makes the wheel of the `ingot` package: pure Python beside the libingot.so that the project's build made.

    python3 python/build_wheel.py [OUT_DIRECTORY]        default: python/dist; prints the wheel's path

It is a PEP 517 backend too (`pip install ./python` calls build_wheel below). Standard library only.

  1. Nothing is compiled and nothing is downloaded; without libingot.so it fails and says how to build it.
  2. The same inputs give the same bytes: entries are sorted and have one date.
  3. The tag names the machine the library was built for, and no version of CPython.
"""

import base64
import hashlib
import os
import re
import sys
import sysconfig
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARY_PLACES = ("build/Release/libingot.so", "build/core/libingot.so")
DATE = (2020, 1, 1, 0, 0, 0)


def project():
    """Fields of [project] in pyproject.toml; only the plain texts that are used here."""
    with open(os.path.join(HERE, "pyproject.toml"), encoding="utf-8") as file:
        return dict(re.findall(r'^([\w-]+) = "([^"]*)"$', file.read(), re.M))


def library():
    for place in LIBRARY_PLACES:
        path = os.path.join(HERE, "..", place)
        if os.path.exists(path):
            return path
    sys.exit("libingot.so was not built: `npm run build`, or `cmake -S . -B build/core && cmake --build build/core`")


def contents(name, version, tag):
    """{path in the wheel: bytes}"""
    files = {}
    for entry in sorted(os.listdir(os.path.join(HERE, "ingot"))):
        if entry.endswith(".py"):
            with open(os.path.join(HERE, "ingot", entry), "rb") as file:
                files[f"ingot/{entry}"] = file.read()
    with open(library(), "rb") as file:
        files["ingot/libingot.so"] = file.read()
    fields = project()
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {fields['name']}\nVersion: {version}\nSummary: {fields['description']}\n"
        f"License: Apache-2.0\nRequires-Python: {fields['requires-python']}\n"
    ).encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: build_wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    )
    return files, info


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 517. Returns the file's name."""
    fields = project()
    name, version = fields["name"].replace("-", "_"), fields["version"]
    tag = "py3-none-" + re.sub(r"[-.]", "_", sysconfig.get_platform())
    files, info = contents(name, version, tag)
    record = ""
    for path, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    os.makedirs(wheel_directory, exist_ok=True)
    wheel = f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, wheel), "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in sorted(files.items()):
            entry = zipfile.ZipInfo(path, DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def get_requires_for_build_wheel(config_settings=None):
    return []


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "dist")
    print(os.path.join(out, build_wheel(out)))

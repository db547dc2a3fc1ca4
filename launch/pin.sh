#!/bin/sh
# Writes launch/constraints.txt: one version of every package that pyproject.toml leads to, of uv and of the build
# backend, for Python 3.11 to 3.13 on Linux and macOS. Versions pinned before stay unless --upgrade is given.
set -eu
cd -- "$(dirname -- "$0")/.."

pins=launch/constraints.txt
new=$(mktemp)
trap 'rm -f "$new"' EXIT
cp "$pins" "$new" 2>/dev/null || :
printf 'uv\nhatchling\n' | uv pip compile pyproject.toml - --extra test --universal --python-version 3.11 \
    --no-python-downloads --quiet --no-annotate --no-header --output-file "$new" "$@"
{
    echo "# Written by launch/pin.sh."
    grep -v "; sys_platform == '\(win32\|emscripten\)'\$" "$new"
} >"$pins"

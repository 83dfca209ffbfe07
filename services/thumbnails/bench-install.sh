#!/bin/bash
# Gets what the bench of thumbnails compares with, and measures by, that Debian has not: into WORK_DIR, each once. Usage: bench-install.sh
# WORK_DIR. Prints the variables that bench.py reads.
set -eu
mkdir -p "$1"; WORK=$(realpath "$1")
export SHARP_DIR=${SHARP_DIR:-$WORK/npm} OXIMG=${OXIMG:-$WORK/oximg/bin/oximg}
{
  if ! PYTHONPATH=$WORK/python python3 -c 'import numpy, PIL' 2>/dev/null; then
    # Into a folder of its own, so that neither the system's packages nor a virtual environment are touched.
    python3 -m pip install --quiet --target "$WORK/python" numpy pillow
  fi
  if [ ! -d "$SHARP_DIR/node_modules/sharp" ]; then
    mkdir -p "$SHARP_DIR"
    npm install --no-fund --no-audit --prefix "$SHARP_DIR" sharp@0.35
  fi
  if [ ! -x "$OXIMG" ]; then
    env -u CARGO_TARGET_DIR cargo install oximg --locked --root "$WORK/oximg"
  fi
} >&2
printf 'PYTHONPATH=%s\nSHARP_DIR=%s\nOXIMG=%s\n' "$WORK/python" "$SHARP_DIR" "$OXIMG"

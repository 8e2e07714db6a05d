#!/usr/bin/env bash
# Prints the directory of `prometheus` and `promtool`. If they are not installed, Debian's package is unpacked into the
# given directory, and not installed.
set -euo pipefail

into=$1
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
  dirname "$(command -v prometheus)"
  exit
fi
if [ ! -x "$into/usr/bin/promtool" ]; then
  if ! command -v apt-get >/dev/null; then
    echo "prometheus and promtool not found; add them to the PATH" >&2
    exit 1
  fi
  sudo=
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  mkdir -p "$into"
  cd "$into"
  apt-get download prometheus >&2 || { $sudo apt-get update -qq >&2 && apt-get download prometheus >&2; }
  dpkg-deb --extract prometheus_*.deb .
  rm prometheus_*.deb
fi
echo "$into/usr/bin"

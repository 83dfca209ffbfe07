#!/bin/bash
# Gets the build tools that clients.sh wants and Debian has not, or has too old: into WORK_DIR, each once. Usage: clients-install.sh
# WORK_DIR. Prints the variables that clients.sh reads.
set -eu
mkdir -p "$1"; WORK=$(realpath "$1")
export NPM_DIR=${NPM_DIR:-$WORK/npm} SCCACHE=${SCCACHE:-$WORK/sccache/bin/sccache} MAVEN_HOME=${MAVEN_HOME:-$WORK/apache-maven-3.9.16}
{
  if [ ! -x "$NPM_DIR/node_modules/.bin/moon" ]; then
    mkdir -p "$NPM_DIR"
    npm install --no-fund --no-audit --prefix "$NPM_DIR" turbo@2.11.11 nx@24.0.6 @moonrepo/cli@2.5.5
  fi
  if [ ! -x "$SCCACHE" ]; then
    env -u CARGO_TARGET_DIR cargo install sccache --version 0.19.0 --locked --no-default-features --features webdav --root "$WORK/sccache"
  fi
  if [ ! -x "$MAVEN_HOME/bin/mvn" ]; then
    # Debian's Maven gets a newer one: the extension wants 3.9.
    mvn -B -ntp org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
      -Dartifact=org.apache.maven:apache-maven:3.9.16:tar.gz:bin -DoutputDirectory="$WORK"
    tar -xzf "$WORK/apache-maven-3.9.16-bin.tar.gz" -C "$WORK"
  fi
} >&2
printf 'NPM_DIR=%s\nSCCACHE=%s\nMAVEN_HOME=%s\n' "$NPM_DIR" "$SCCACHE" "$MAVEN_HOME"

#!/bin/bash
# Real clients against a real cache: each builds something twice, the second time with nothing local, and must get a warm hit.
# Usage: clients.sh BINARY WORK_DIR [TOOL..]; without tools, all of them. What is not installed is told as missing; exit code 1 if one that
# is there gets no hit. npm tools are looked for in $NPM_DIR/node_modules/.bin, sccache in $SCCACHE or the path, Maven in $MAVEN_HOME or
# the path: see clients-install.sh.
set -u
BIN=$(realpath "$1"); WORK=$2; shift 2; TOOLS=" ${*:-ccache sccache gradle bazel turbo nx moon maven} "
mkdir -p "$WORK"; cd "$WORK" || exit 2; WORK=$PWD
NPM=${NPM_DIR:-/nowhere}/node_modules/.bin; SCCACHE=${SCCACHE:-$(command -v sccache)}
MVN=${MAVEN_HOME:+$MAVEN_HOME/bin/mvn}; MVN=${MVN:-$(command -v mvn)}
passed=0; failed=0; missing=0
wanted() { [[ $TOOLS == *" $1 "* ]]; }
"$BIN" serve --addr 127.0.0.1:0 --data-dir "$WORK/data" >"$WORK/out" 2>"$WORK/err" & SERVER=$!
trap 'kill $SERVER 2>/dev/null' EXIT
until grep -q listening "$WORK/out"; do kill -0 $SERVER || exit 2; done
ADDR=$(sed 's/listening on //' "$WORK/out"); URL=http://$ADDR
hits() { curl -s "$URL/status" | python3 -c 'import json,sys; print(sum(p["hits"] for p in json.load(sys.stdin)["protocols"] if p["protocol"] in sys.argv[1].split(",")))' "$1"; }
# told NAME PROTOCOL COMMAND [PROBES]: runs COMMAND twice; the second must raise the server's count of hits by more than PROBES, which
# are what the tool reads to try the cache.
told() {
  local name=$1 protocol=$2 probes=${4:-0} start=$SECONDS; set -- "$3"
  "$@" cold >"$WORK/$name.cold.log" 2>&1; local cold=$?
  local before; before=$(hits "$protocol")
  "$@" warm >"$WORK/$name.warm.log" 2>&1; local warm=$?
  local after; after=$(hits "$protocol")
  if [ $cold = 0 ] && [ $warm = 0 ] && [ "$after" -gt $((before + probes)) ]; then
    passed=$((passed + 1)); echo "client $name: warm hit ($((after - before)) requests served, $((SECONDS - start)) s)"
  else
    failed=$((failed + 1)); echo "client $name: no hit (cold exit $cold, warm exit $warm, hits $before -> $after); logs: $WORK/$name.*.log"
  fi
}
lacks() { missing=$((missing + 1)); echo "client $1: not installed"; }

mkdir -p src; printf '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n' >src/a.c
use_ccache() { rm -rf "$WORK/ccache"; CCACHE_DIR=$WORK/ccache CCACHE_REMOTE_STORAGE="$URL/$2|layout=$1" CCACHE_REMOTE_ONLY=true ccache gcc -c src/a.c -o a.o; }
ccache_flat() { use_ccache flat ccache; }; ccache_subdirs() { use_ccache subdirs sub/ccache; }; ccache_bazel() { use_ccache bazel ccache; }
if ! wanted ccache; then :; elif command -v ccache >/dev/null; then
  told ccache-flat ccache ccache_flat; told ccache-subdirs ccache ccache_subdirs; told ccache-bazel bazel ccache_bazel
else lacks ccache; fi

use_sccache() {
  unset CARGO_INCREMENTAL # sccache refuses to work beside it
  export SCCACHE_WEBDAV_ENDPOINT=$URL SCCACHE_WEBDAV_KEY_PREFIX=/dav SCCACHE_SERVER_PORT=$((20000 + $$ % 20000)) SCCACHE_IGNORE_SERVER_IO_ERROR=0
  "$SCCACHE" --stop-server; "$SCCACHE" gcc -c src/a.c -o a.o; local code=$?; "$SCCACHE" --show-stats; "$SCCACHE" --stop-server; return $code
}
if ! wanted sccache; then :; elif [ -x "$SCCACHE" ]; then told sccache dav use_sccache 1; else lacks sccache; fi

use_gradle() {
  mkdir -p gradle/src/main/java; cd gradle || return 1
  echo 'class A { int f() { return 1; } }' >src/main/java/A.java; echo "apply plugin: 'java'" >build.gradle
  echo "buildCache { local { enabled = false }; remote(HttpBuildCache) { url = '$URL/gradle/'; push = true } }" >settings.gradle
  rm -rf build .gradle; GRADLE_USER_HOME=$WORK/gradle-home gradle --no-daemon --build-cache compileJava; local code=$?; cd ..; return $code
}
if ! wanted gradle; then :; elif command -v gradle >/dev/null; then told gradle gradle use_gradle; else lacks gradle; fi

use_bazel() {
  mkdir -p bazel; cd bazel || return 1; : >WORKSPACE
  printf 'genrule(name = "a", outs = ["a.txt"], cmd = "echo hello > $@")\n' >BUILD
  rm -rf "$WORK/bazel-root"
  bazel --output_user_root="$WORK/bazel-root" --batch build --spawn_strategy=local --remote_cache="$1" --remote_instance_name=bz //:a; local code=$?
  chmod -R u+w "$WORK/bazel-root"; cd ..; return $code
}
bazel_http() { use_bazel "$URL/bz"; }; bazel_grpc() { use_bazel "grpc://$ADDR"; }
if ! wanted bazel; then :; elif command -v bazel >/dev/null; then told bazel-http bazel bazel_http; told bazel-grpc reapi bazel_grpc; else lacks bazel; fi

js_project() { mkdir -p "$1"; cd "$1" || return 1; git init -q . 2>/dev/null; }
use_turbo() {
  js_project turbo && mkdir -p packages/a
  echo '{"name":"r","private":true,"workspaces":["packages/*"],"packageManager":"npm@10.8.2"}' >package.json
  echo '{"name":"r","lockfileVersion":3,"packages":{}}' >package-lock.json
  echo '{"name":"a","version":"1.0.0","scripts":{"build":"mkdir -p dist && echo built > dist/a"}}' >packages/a/package.json
  echo '{"tasks":{"build":{"outputs":["dist/**"]}}}' >turbo.json
  rm -rf .turbo node_modules/.cache packages/a/dist packages/a/.turbo
  TURBO_TELEMETRY_DISABLED=1 TURBO_API=$URL TURBO_TOKEN=t TURBO_TEAM=team "$NPM/turbo" run build --cache=remote:rw; local code=$?; cd ..; return $code
}
if ! wanted turbo; then :; elif [ -x "$NPM/turbo" ]; then told turbo turbo use_turbo; else lacks turbo; fi

use_nx() {
  js_project nx; [ -e node_modules ] || ln -s "$(realpath "$NPM/..")" node_modules
  echo '{"name":"n","private":true,"scripts":{}}' >package.json
  echo '{"name":"n","root":".","targets":{"build":{"command":"mkdir -p dist && echo built > dist/a","cache":true,"outputs":["{projectRoot}/dist"]}}}' >project.json
  echo '{"analytics":false}' >nx.json; printf 'node_modules\ndist\n.nx\n' >.gitignore
  rm -rf dist .nx; NX_DAEMON=false NX_NO_CLOUD=true NX_CACHE_DIRECTORY="$WORK/nx-cache-$1" NX_SELF_HOSTED_REMOTE_CACHE_SERVER=$URL NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN=t "$NPM/nx" run n:build; local code=$?; cd ..; return $code
}
if ! wanted nx; then :; elif [ -x "$NPM/nx" ]; then told nx nx use_nx; else lacks nx; fi

use_moon() {
  js_project moon; mkdir -p .moon a
  printf "projects: ['a']\nremote:\n  host: '%s'\n  api: '%s'\n" "$1" "$2" >.moon/workspace.yml
  printf "tasks:\n  build:\n    script: 'mkdir -p dist && echo built > dist/a'\n    outputs: ['dist']\n    inputs: ['moon.yml']\n" >a/moon.yml
  git add -A; git -c user.name=t -c user.email=t@t commit -qm x
  rm -rf .moon/cache a/dist; CI=true "$NPM/moon" run a:build; local code=$?; cd ..; return $code
}
moon_http() { use_moon "$URL" http; }; moon_grpc() { use_moon "grpc://$ADDR" grpc; }
if ! wanted moon; then :; elif [ -x "$NPM/moon" ]; then told moon-http bazel moon_http; rm -rf moon; told moon-grpc reapi moon_grpc; else lacks moon; fi

# The extension is a plug-in that Maven fetches by itself, from 3.9 on.
use_maven() {
  mkdir -p maven/.mvn maven/src/main/java; cd maven || return 1
  echo 'class A { int f() { return 1; } }' >src/main/java/A.java
  cat >pom.xml <<END
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>g</groupId><artifactId>a</artifactId><version>1</version>
<properties><maven.compiler.source>8</maven.compiler.source><maven.compiler.target>8</maven.compiler.target>
<project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties></project>
END
  cat >.mvn/extensions.xml <<END
<extensions><extension><groupId>org.apache.maven.extensions</groupId><artifactId>maven-build-cache-extension</artifactId>
<version>1.2.0</version></extension></extensions>
END
  cat >.mvn/maven-build-cache-config.xml <<END
<cache xmlns="http://maven.apache.org/BUILD-CACHE-CONFIG/1.2.0"><configuration><enabled>true</enabled>
<hashAlgorithm>SHA-256</hashAlgorithm><remote enabled="true" saveToRemote="true"><url>$URL/maven</url></remote></configuration></cache>
END
  rm -rf target "$WORK/maven-local"
  "$MVN" -B -ntp -Dmaven.build.cache.location="$WORK/maven-local" -Dmaven.build.cache.remote.save.enabled=true package
  local code=$?; cd ..; return $code
}
is_maven_new() { [ -x "$MVN" ] && "$MVN" -v 2>/dev/null | grep -qE '^Apache Maven (3\.(9|[1-9][0-9])|[4-9])'; }
if ! wanted maven; then :; elif is_maven_new; then told maven maven use_maven; else lacks maven; fi
echo "$passed passed, $failed failed, $missing skipped"
[ $failed = 0 ]

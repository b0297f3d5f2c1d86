#!/usr/bin/env bash
# A Kafka broker for tests, from Maven's jars:
#   scripts/kafka-broker.sh install                    jars and class archive into .cache/kafka
#   scripts/kafka-broker.sh run DIR PORT CONTROLLER [PROPERTIES]
#                                                      runs the broker in this process, with its data in DIR and
#                                                      other settings than those of scripts/kafka/server.properties
# The jars must have the checksums of scripts/kafka/lib.sha256 (UPDATE=1 install: writes them anew).
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$PWD/.cache/kafka
flags=(-Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dlog4j2.configurationFile=$PWD/scripts/kafka/log4j2.properties" -cp "$cache/lib/*")

prepare() { # DIR PORT CONTROLLER [PROPERTIES]: the configuration, and an empty store at the first time
  mkdir -p "$1"
  sed -e "s#@DIR@#$1#g; s#@PORT@#$2#g; s#@CONTROLLER@#$3#g" "${4:-scripts/kafka/server.properties}" >"$1/server.properties"
  [ -e "$1/data/meta.properties" ] && return
  local id standalone=(--standalone)
  ! grep -q '^controller.quorum.voters=' "$1/server.properties" || standalone=() # the settings name the controller
  id=$(java "${flags[@]}" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -1)
  java "${flags[@]}" kafka.tools.StorageTool format -t "$id" -c "$1/server.properties" "${standalone[@]}" >"$1/format.log" 2>&1 || {
    cat "$1/format.log" >&2
    exit 1
  }
}

case "${1:-}" in
install)
  scripts/system-packages.sh java=openjdk-17-jre-headless mvn=maven
  mkdir -p "$cache"
  if [ -n "${UPDATE:-}" ] || ! (cd "$cache/lib" 2>/dev/null && sha256sum --status -c "$OLDPWD/scripts/kafka/lib.sha256"); then
    echo "kafka-broker: copying the broker's jars into .cache/kafka/lib"
    rm -rf "$cache/lib" "$cache/kafka.jsa"
    scripts/again.sh mvn -q -B -f scripts/kafka/pom.xml dependency:copy-dependencies "-DoutputDirectory=$cache/lib" -DincludeScope=runtime
    [ -z "${UPDATE:-}" ] || (cd "$cache/lib" && sha256sum ./*) >scripts/kafka/lib.sha256
    (cd "$cache/lib" && sha256sum --quiet -c "$OLDPWD/scripts/kafka/lib.sha256")
  fi
  if [ ! -e "$cache/kafka.jsa" ]; then # a broker starts in half of the time with it
    echo "kafka-broker: making the class archive .cache/kafka/kafka.jsa"
    rm -rf "$cache/first"
    read -r port controller < <(python3 -c 'import socket
all = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in all))')
    prepare "$cache/first" "$port" "$controller"
    java "${flags[@]}" "-XX:ArchiveClassesAtExit=$cache/kafka.jsa" kafka.Kafka "$cache/first/server.properties" >"$cache/first.log" 2>&1 &
    pid=$!
    for _ in $(seq 600); do
      grep -q 'Kafka Server started' "$cache/first.log" && break
      kill -0 $pid 2>/dev/null || { tail -20 "$cache/first.log" >&2; exit 1; }
      sleep 0.2
    done
    kill $pid
    wait $pid || true # 143
    rm -rf "$cache/first"
  fi
  ;;
run)
  prepare "$2" "$3" "$4" "${5:-}"
  exec java "${flags[@]}" -Xshare:auto "-XX:SharedArchiveFile=$cache/kafka.jsa" kafka.Kafka "$2/server.properties"
  ;;
*)
  sed -n '2,7p' "$0" >&2
  exit 2
  ;;
esac

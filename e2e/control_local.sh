#!/usr/bin/env bash
# Controls the nodes of run_local.sh: `control_local.sh VERB NODE`, in the environment that
# run_local.sh exports.
#
# Each node is a process group: `litefs mount` and the application that it starts. The file NODE.pid
# in the run's directory holds the id of the group.
set -euo pipefail

usage="usage: control_local.sh start|stop|kill|promote|migrate NODE"
verb="${1:?$usage}"
node="${2:?$usage}"
dir="${E2E_DIR:?run_local.sh sets it}"
here="$(cd "$(dirname "$0")" && pwd)"
pid_file="$dir/$node.pid"

# The ports of a node: the application, LiteFS, the library's RPC server.
case "$node" in
    node-a) offset=0 ;;
    node-b) offset=3 ;;
    *) echo "there is no $node" >&2 && exit 2 ;;
esac
app_port=$((E2E_PORT_BASE + offset))
litefs_port=$((E2E_PORT_BASE + offset + 1))
rpc_port=$((E2E_PORT_BASE + offset + 2))

settings() {
    export E2E_MOUNT="$dir/$node/mount" E2E_DATA="$dir/$node/data"
    export E2E_LITEFS_LISTEN="127.0.0.1:$litefs_port"
    export RESOURCES_DATABASE="$E2E_MOUNT/app.db" RESOURCES_LISTEN="127.0.0.1:$app_port"
    export LITEFS_HTTP_URL="http://127.0.0.1:$litefs_port" LITEFS_REQUIRE=1
    export LITEFS_RPC_LISTEN="127.0.0.1:$rpc_port" LITEFS_RPC_ADVERTISE="127.0.0.1:$rpc_port"
    export E2E_LEASE_HOSTNAME="$node" E2E_CANDIDATE=true
    export E2E_ADVERTISE_URL="http://127.0.0.1:$litefs_port"
    if [[ "$E2E_LEASE" = static ]]; then
        E2E_LEASE_HOSTNAME="node-a"
        E2E_ADVERTISE_URL="http://127.0.0.1:$((E2E_PORT_BASE + 1))"
        [[ "$node" = node-a ]] || E2E_CANDIDATE=false
    fi
}

# Whether a process belongs to this run. The system may have given the id to another process since.
ours() {
    grep -zqxF "E2E_DIR=$dir" "/proc/$1/environ" 2>/dev/null
}

# The node's process group, if one of its processes runs: the application survives a LiteFS that
# ended by itself.
group() {
    local pid member
    [[ -f "$pid_file" ]] || return 1
    pid="$(<"$pid_file")"
    for member in $(pgrep -g "$pid" || true); do
        if ours "$member"; then
            echo "$pid"
            return 0
        fi
    done
    return 1
}

ended() {
    local pid="$1" tries="$2"
    while ((tries-- > 0)); do
        kill -0 -- "-$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}

unmounted() {
    if grep -qF " $dir/$node/mount " /proc/mounts; then
        fusermount3 -u -z "$dir/$node/mount"
    fi
    rm -f "$pid_file"
}

start() {
    local pid
    if pid="$(group)"; then
        if ours "$pid"; then
            return 0
        fi
        # LiteFS has ended. In a container the application would have ended with it.
        echo "the LiteFS of $node had ended by itself" >&2
        finish "$pid"
    fi
    unmounted
    mkdir -p "$dir/$node/mount" "$dir/$node/data"
    settings
    # Append: the lines before a kill are the most useful ones.
    setsid "$LITEFS_BIN" mount -config "$here/litefs.yml" </dev/null >>"$dir/$node.log" 2>&1 &
    echo "$!" >"$pid_file"
}

# Stops the node as an operator would: SIGTERM to LiteFS, which forwards it.
stop() {
    local pid
    if pid="$(group)"; then
        kill -TERM "$pid" 2>/dev/null || true
        if ! ended "$pid" 200; then
            echo "$node did not stop within 20 s" >&2
            finish "$pid"
            exit 1
        fi
    fi
    unmounted
}

# Kills LiteFS and the application at once, like a crash of the machine.
finish() {
    kill -KILL -- "-$1" 2>/dev/null || true
    ended "$1" 100 || { echo "$node cannot be killed" >&2 && return 1; }
}

case "$verb" in
    start) start ;;
    stop) stop ;;
    kill)
        if ! pid="$(group)"; then
            unmounted
        elif [[ "${E2E_KILL:-node}" = litefs ]]; then
            kill -KILL "$pid"
        else
            finish "$pid"
            unmounted
        fi
        ;;
    promote) curl -fsS -X POST "http://127.0.0.1:$litefs_port/promote" ;;
    migrate)
        settings
        "$E2E_RESOURCES" migrate
        ;;
    *) echo "$usage" >&2 && exit 2 ;;
esac

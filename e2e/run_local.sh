#!/usr/bin/env bash
# The scenarios E1 to E8 on real LiteFS without Docker: two nodes with FUSE mounts on this machine.
#
#   LITEFS_BIN     the litefs binary; default: `litefs` on PATH
#   CONSUL_URL     a Consul, such as http://127.0.0.1:8500; without it the lease is static and the
#                  scenarios that need a failover are reported as skipped
#   E2E_PORT_BASE  the first of seven ports on 127.0.0.1; default 27100
#   E2E_KILL       what killing a node ends: `node` (default), LiteFS and the application at once;
#                  or `litefs`, so that the application runs on over a dead mount until the node is
#                  started again
#   E2E_KEEP_LOGS  a directory to copy the nodes' logs to
#
# Arguments are passed to the scenario runner (`--only E1,E3`, `--help`). Exits with 77 if a
# prerequisite is missing, with 0 only if no scenario failed. Ends the processes it started,
# unmounts, and removes its directory.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
    echo "run_local.sh: $1; nothing was run" >&2
    exit 77
}

LITEFS_BIN="$(command -v "${LITEFS_BIN:-litefs}" || true)"
[[ -n "$LITEFS_BIN" ]] || missing "litefs is not installed: put it on PATH or set LITEFS_BIN"
command -v fusermount3 >/dev/null || missing "fusermount3 is not installed (Debian: package fuse3)"
[[ -c /dev/fuse && -r /dev/fuse && -w /dev/fuse ]] ||
    missing "/dev/fuse does not exist or this user may not open it"
for tool in cargo curl pgrep setsid; do
    command -v "$tool" >/dev/null || missing "$tool is not installed"
done
if [[ -n "${CONSUL_URL:-}" ]]; then
    curl -fsS --max-time 5 "$CONSUL_URL/v1/status/leader" >/dev/null ||
        missing "no Consul answers at $CONSUL_URL"
fi

E2E_PORT_BASE="${E2E_PORT_BASE:-27100}"
for port in $(seq "$E2E_PORT_BASE" $((E2E_PORT_BASE + 6))); do
    if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        missing "port $port of 127.0.0.1 is in use: set E2E_PORT_BASE"
    fi
done

cargo build --release --quiet --locked -p litefs-examples -p litefs-e2e \
    --bin resources --bin litefs-e2e
programs="${CARGO_TARGET_DIR:-target}/release"

E2E_DIR="$(mktemp -d "${TMPDIR:-/tmp}/litefs-e2e.XXXXXX")"
E2E_RESOURCES="$(realpath "$programs/resources")"
E2E_CONSUL_URL="${CONSUL_URL:-}"
# A new key for each run: LiteFS refuses a cluster whose id it does not know.
E2E_CONSUL_KEY="litefs-e2e/$(basename "$E2E_DIR")"
RESOURCES_UPSTREAM="http://127.0.0.1:$((E2E_PORT_BASE + 6))"
LITEFS_RPC_SECRET="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
E2E_LEASE=static
[[ -z "$E2E_CONSUL_URL" ]] || E2E_LEASE=consul
export E2E_DIR E2E_RESOURCES E2E_CONSUL_URL E2E_CONSUL_KEY E2E_LEASE E2E_PORT_BASE
export LITEFS_BIN RESOURCES_UPSTREAM LITEFS_RPC_SECRET
# The library reads LITEFS_* variables: the user's settings must not change the scenarios.
unset LITEFS_CONSISTENCY LITEFS_SERVE LITEFS_DATABASE

# The ids of the processes that this script started.
started=()
clean_up() {
    local status=$?
    trap - EXIT
    for process in "${started[@]}"; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    for node in node-a node-b; do
        E2E_KILL=node e2e/control_local.sh kill "$node" || true
    done
    if [[ -n "${E2E_KEEP_LOGS:-}" ]]; then
        mkdir -p "$E2E_KEEP_LOGS"
        cp "$E2E_DIR"/*.log "$E2E_KEEP_LOGS" || true
    elif ((status != 0)); then
        for node in node-a node-b; do
            echo "-- the last of $node's log"
            tail -n 30 "$E2E_DIR/$node.log" 2>/dev/null || true
        done
    fi
    # Do not delete the files of a mount that could not be unmounted.
    if grep -qF " $E2E_DIR/" /proc/mounts; then
        echo "run_local.sh: $E2E_DIR is still mounted and stays" >&2
    else
        rm -rf "$E2E_DIR"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$E2E_RESOURCES" upstream --listen "127.0.0.1:$((E2E_PORT_BASE + 6))" &
started+=("$!")
for node in node-a node-b; do
    e2e/control_local.sh start "$node"
done

node() {
    local port=$((E2E_PORT_BASE + $2))
    echo "$1=http://127.0.0.1:$port,http://127.0.0.1:$((port + 1))"
}
options=(--control e2e/control_local.sh --node "$(node node-a 0)" --node "$(node node-b 3)")
if [[ "$E2E_LEASE" = static ]]; then
    options+=(--no-failover "the lease is static; set CONSUL_URL")
fi
# In the background, so that the script handles a signal at once.
"$programs/litefs-e2e" "${options[@]}" "$@" &
started+=("$!")
wait "$!"

#!/usr/bin/env bash
# The scenarios E1 to E8 on real LiteFS with Docker Compose: Consul and two nodes
# (docker-compose.yml).
#
#   E2E_PORT_A, E2E_LITEFS_PORT_A, E2E_PORT_B, E2E_LITEFS_PORT_B
#       the ports on 127.0.0.1 of the nodes' applications and of LiteFS; default 27100, 27101,
#       27103, 27104
#
# Arguments are passed to the scenario runner (`--only E1,E3`, `--help`). Exits with 77 if a
# prerequisite is missing, with 0 only if no scenario failed. Removes its containers and volumes.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
    echo "run_tests.sh: $1; nothing was run" >&2
    exit 77
}

for tool in docker cargo curl; do
    command -v "$tool" >/dev/null || missing "$tool is not installed"
done
docker compose version >/dev/null 2>&1 || missing "docker compose is not installed"
docker info >/dev/null 2>&1 || missing "the Docker daemon does not answer"

export E2E_PORT_A="${E2E_PORT_A:-27100}" E2E_LITEFS_PORT_A="${E2E_LITEFS_PORT_A:-27101}"
export E2E_PORT_B="${E2E_PORT_B:-27103}" E2E_LITEFS_PORT_B="${E2E_LITEFS_PORT_B:-27104}"
export E2E_PROJECT="litefs-e2e-$$"
LITEFS_RPC_SECRET="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
export LITEFS_RPC_SECRET
compose=(docker compose --project-name "$E2E_PROJECT" --file e2e/docker-compose.yml)

cargo build --release --quiet --locked -p litefs-e2e --bin litefs-e2e

runner=""
clean_up() {
    local status=$?
    trap - EXIT
    if [[ -n "$runner" ]]; then
        kill "$runner" 2>/dev/null || true
        wait "$runner" 2>/dev/null || true
    fi
    if ((status != 0)); then
        "${compose[@]}" logs --tail 50 || true
    fi
    "${compose[@]}" down --volumes --timeout 10 || true
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"${compose[@]}" build node-a
"${compose[@]}" up --detach --no-build

# In the background, so that the script handles a signal at once.
"${CARGO_TARGET_DIR:-target}/release/litefs-e2e" --control e2e/control_compose.sh \
    --node "node-a=http://127.0.0.1:$E2E_PORT_A,http://127.0.0.1:$E2E_LITEFS_PORT_A" \
    --node "node-b=http://127.0.0.1:$E2E_PORT_B,http://127.0.0.1:$E2E_LITEFS_PORT_B" "$@" &
runner=$!
wait "$runner"

#!/usr/bin/env bash
# Controls the nodes of run_tests.sh: `control_compose.sh VERB NODE`, in the environment that
# run_tests.sh exports.
set -euo pipefail

usage="usage: control_compose.sh start|stop|kill|promote|migrate NODE"
verb="${1:?$usage}"
node="${2:?$usage}"
project="${E2E_PROJECT:?run_tests.sh sets it}"
compose=(docker compose --project-name "$project" --file "$(dirname "$0")/docker-compose.yml")

case "$node" in
    node-a) litefs="http://127.0.0.1:$E2E_LITEFS_PORT_A" ;;
    node-b) litefs="http://127.0.0.1:$E2E_LITEFS_PORT_B" ;;
    *) echo "there is no $node" >&2 && exit 2 ;;
esac

case "$verb" in
    start | stop | kill) "${compose[@]}" "$verb" "$node" >&2 ;;
    promote) curl -fsS -X POST "$litefs/promote" ;;
    migrate) "${compose[@]}" exec -T "$node" resources migrate ;;
    *) echo "$usage" >&2 && exit 2 ;;
esac

#!/bin/sh
# Says what the profile `metrics` of docker-compose.yml lacks, and ends with 2; with 0 if nothing is missing.
#
# SERVE_TOKEN and GRAFANA_PASSWORD are variables, or files that SERVE_TOKEN_FILE and GRAFANA_PASSWORD_FILE name.
set -u
export LC_ALL=C
status=0

# The variable $1 must have at least $2 characters.
require() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    place="set $1 in .env, see .env.example"
    if [ -n "$file" ]; then
        place="write it to the file $(basename "$file") of docker-compose.secrets.yml"
        value=$(cat "$file") || value=
    fi
    case $value in *[!!-~]*) value= ;; esac
    if [ "${#value}" -lt "$2" ]; then
        echo "$1: $place: at least $2 characters of ASCII, and no spaces (\`openssl rand -hex 24\`)" >&2
        status=2
    fi
}

require SERVE_TOKEN 16
require GRAFANA_PASSWORD 8
exit "$status"

#!/usr/bin/env bash
# Starts the server; the first time, installs what it needs into .venv. Arguments go to `python -m server serve`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
scripts/bootstrap.sh
# exec: Ctrl+C, SIGTERM and the exit status are the server's own.
exec .venv/bin/python -m server serve "$@"

#!/usr/bin/env bash
# Starts the GPU server; the first time, installs what it needs into .venv. Arguments go to `python -m server serve`.
#
#   ./run.sh         the GPU server
#   ./run.sh site    the GPU server, the site and its worker together
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ "${1:-}" == site ]]; then
  scripts/bootstrap.sh --site
  exec .venv/bin/python scripts/run_site.py
fi
scripts/bootstrap.sh
# exec: Ctrl+C, SIGTERM and the exit status are the server's own.
exec .venv/bin/python -m server serve "$@"

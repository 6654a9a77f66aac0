#!/usr/bin/env bash
# Makes sure that .venv is complete: finds a Python, then leaves the rest to install_venv.py.
#
#   scripts/bootstrap.sh [--site] [--dev] [--system-packages]
#     --site             with what the site needs
#     --dev              with what the tests need, and the site
#     --system-packages  a missing Python or venv module may be installed with apt-get, where we are root
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
may_install_system_packages=false
extras=()
for option in "$@"; do
  case "$option" in
    --system-packages) may_install_system_packages=true ;;
    --site | --dev) extras+=("$option") ;;
    *) echo "bootstrap.sh: unknown option $option" >&2; exit 2 ;;
  esac
done

# Prints the first Python that suits. Locks are made for 3.11 to 3.13; a newer one is tried only where none of those is.
find_python() {
  local newest candidate
  for newest in 13 99; do
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.13 python3.11 python; do
      if "$candidate" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest))" 2>/dev/null; then
        command -v "$candidate"
        return
      fi
    done
  done
  return 1
}

has_venv() { "$1" -c "import ensurepip, venv" 2>/dev/null; }

apt_install() {
  "$may_install_system_packages" && [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null || return 1
  echo "==> apt-get install $*" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } </dev/null >&2
}

# The second start ends here: one short process, nothing installed.
if [[ -x "$root/.venv/bin/python" ]] &&
  "$root/.venv/bin/python" "$root/scripts/install_venv.py" --check "${extras[@]}" 2>/dev/null; then
  exit 0
fi

python="$(find_python)" || { apt_install python3 python3-venv && python="$(find_python)"; } || {
  echo "Python 3.11, 3.12 or 3.13 is needed, and none of python3, python3.11 to python3.13 is one." >&2
  echo "Debian, Ubuntu: sudo apt-get install python3 python3-venv. macOS: brew install python@3.12. Any other: python.org." >&2
  echo "If it lies elsewhere, name it: PYTHON=/path/to/python3.12 ./run.sh" >&2
  exit 1
}
has_venv "$python" || { apt_install python3-venv && has_venv "$python"; } || {
  echo "$python lacks the venv module. Debian, Ubuntu: sudo apt-get install python3-venv." >&2
  exit 1
}
"$python" "$root/scripts/install_venv.py" "${extras[@]}"

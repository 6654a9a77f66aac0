#!/usr/bin/env bash
# Checks everything: format, lint, types, import contracts, shell scripts, tests. Arguments go to pytest: ./test.sh -k seed
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
started=$SECONDS
skipped=()
failed=()

scripts/bootstrap.sh --dev --system-packages
export PATH="$PWD/.venv/bin:$PATH"

wanted=()
command -v shellcheck >/dev/null || wanted+=(shellcheck)
command -v chromium >/dev/null || wanted+=(chromium)
if ((${#wanted[@]})) && [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
  echo "==> apt-get install ${wanted[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}"; } \
    </dev/null >/dev/null 2>&1 || true
fi

# Runs one stage to its end, whatever came of it, so that one run shows everything that is wrong.
stage() {
  local name="$1" since=$SECONDS outcome=passed
  shift
  echo
  echo "==> $name: $*"
  "$@" </dev/null || { outcome=FAILED; failed+=("$name"); }
  echo "==> $name $outcome in $((SECONDS - since)) s"
}

stage format ruff format --check .
stage lint ruff check .
stage types mypy
stage imports lint-imports
if command -v shellcheck >/dev/null; then
  stage shell shellcheck run.sh test.sh .ci/run scripts/*.sh
else
  skipped+=("shell: shellcheck is not installed, and apt-get could not install it")
fi
command -v chromium >/dev/null || skipped+=("the page in a browser: chromium is not installed, and apt-get could not install it")
stage tests python -m pytest "$@"

echo
if ((${#skipped[@]})); then printf '==> SKIPPED %s\n' "${skipped[@]}"; fi
if ((${#failed[@]})); then
  echo "==> FAILED: ${failed[*]} (in $((SECONDS - started)) s)"
  exit 1
fi
echo "==> everything passed in $((SECONDS - started)) s"

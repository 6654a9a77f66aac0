#!/usr/bin/env bash
# Checks everything: format, lint, types, import contracts, shell scripts, tests. Arguments go to pytest: ./test.sh -k seed
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
started=$SECONDS
skipped=()
failed=()
unsteady=""

scripts/bootstrap.sh --dev --system-packages
export PATH="$PWD/.venv/bin:$PATH"

wanted=()
command -v shellcheck >/dev/null || wanted+=(shellcheck)
command -v chromium >/dev/null || wanted+=(chromium)
command -v caddy >/dev/null || wanted+=(caddy)
command -v redis-server >/dev/null || wanted+=(redis-server)
has_postgres() { command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
has_postgres || wanted+=(postgresql)
if ((${#wanted[@]})) && [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
  echo "==> apt-get install ${wanted[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}"; } \
    </dev/null >/dev/null 2>&1 || true
fi

# Debian's package of Prometheus would start a server, too: only its tool is taken out of it.
if ! command -v promtool >/dev/null && [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
  echo "==> promtool, from Debian's package prometheus"
  download="$(mktemp -d)"
  { apt-get update -qq && (cd "$download" && apt-get download -o APT::Sandbox::User=root prometheus) \
      && dpkg-deb --extract "$download"/prometheus_*.deb "$download/files" \
      && cp "$download/files/usr/bin/promtool" .venv/bin/; } </dev/null >/dev/null 2>&1 || true
  rm -rf "$download"
fi

# Runs one stage to its end, whatever came of it, so that one run shows everything that is wrong.
stage() {
  local name="$1" since=$SECONDS outcome=passed
  shift
  echo
  echo "==> $name: $*"
  status=0
  "$@" </dev/null || { status=$?; outcome=FAILED; failed+=("$name"); }
  echo "==> $name $outcome in $((SECONDS - since)) s"
}

stage format ruff format --check .
stage lint ruff check .
stage types mypy
stage imports lint-imports
stage client python scripts/generate_sync_client.py --check
stage messages python scripts/texts.py --check
if command -v shellcheck >/dev/null; then
  stage shell shellcheck run.sh test.sh .ci/run scripts/*.sh deploy/systemd/semantic-bit deploy/systemd/newdreamflow
else
  skipped+=("shell: shellcheck is not installed, and apt-get could not install it")
fi
command -v caddy >/dev/null || skipped+=("behind Caddy: caddy is not installed, and apt-get could not install it")
command -v chromium >/dev/null || skipped+=("the page in a browser: chromium is not installed, and apt-get could not install it")
command -v promtool >/dev/null || skipped+=("alerts and rules: promtool is not installed, and apt-get could not fetch it")
has_postgres || skipped+=("the site on PostgreSQL: it is not installed, and apt-get could not install it")
command -v redis-server >/dev/null || skipped+=("the site on Celery: redis-server is not installed, and apt-get could not install it")
if (($#)); then
  stage tests python -m pytest -rfEs "$@"
else
  # Files are dealt to two processes; what measures times, floods and kills runs afterwards, with the machine to itself.
  rm -f .pytest_cache/v/cache/lastfailed
  stage tests python -m pytest -rfEs --durations=25 --durations-min=5 -n "${TEST_WORKERS:-2}" --dist loadfile --ignore tests/chaos
  tests_status=$status
  stage chaos python -m pytest -rfEs --durations=10 --durations-min=5 tests/chaos
  # A busy machine starves single tests: up to five failures get one more try, alone, and are reported either way.
  # Status 1 is "tests failed"; a crash of pytest or a failed collection gets none.
  num_failed="$(python -c 'import json; print(len(json.load(open(".pytest_cache/v/cache/lastfailed"))))' 2>/dev/null || echo 0)"
  if ((tests_status <= 1 && status <= 1 && tests_status + status >= 1 && num_failed >= 1 && num_failed <= 5)); then
    stage "second try" python -m pytest -rfEs --last-failed --last-failed-no-failures none
    if ((status == 0)); then
      steady=()
      for name in "${failed[@]}"; do [[ "$name" == tests || "$name" == chaos ]] || steady+=("$name"); done
      failed=("${steady[@]}")
      unsteady="$num_failed tests passed only on their second try, alone: see the failures above"
    fi
  fi
fi

echo
if ((${#skipped[@]})); then printf '==> SKIPPED %s\n' "${skipped[@]}"; fi
if [[ -n "$unsteady" ]]; then echo "==> UNSTEADY $unsteady"; fi
if ((${#failed[@]})); then
  echo "==> FAILED: ${failed[*]} (in $((SECONDS - started)) s)"
  exit 1
fi
echo "==> everything passed in $((SECONDS - started)) s"

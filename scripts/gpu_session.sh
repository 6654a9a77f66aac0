#!/usr/bin/env bash
# Everything that needs a GPU, in one call of at most 10 minutes, on a host without network: installs the bundle, makes
# Stable Diffusion 1.5 in random weights, runs tests/gpu and benchmarks/gpu.py. See docs/gpu.md.
#
#   OUT=results scripts/gpu_session.sh BUNDLE
#
#   BUNDLE        the folder that `scripts/offline_bundle.py collect` filled
#   OUT           where reports go (default: var/gpu_session)
#   SD15_FOLDER   a model to use instead of random weights
#   HOST_PYTHON   the Python that holds the host's torch (default: python3)
#   ARCH, DEVICE  tiny and cpu: does this script run at all
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bundle="${1:?the bundle folder is missing: scripts/gpu_session.sh BUNDLE}"
out="${OUT:-var/gpu_session}"
host_python="${HOST_PYTHON:-python3}"
arch="${ARCH:-sd15}"
device="${DEVICE:-cuda}"
venv=var/gpu_venv
python="$venv/bin/python"
failed=()
mkdir -p "$out" var
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

say() { echo "==> ${SECONDS} s: $*"; }

# Runs a stage within a limit, keeps what it prints, and goes on whatever came of it.
stage() {
  local name="$1" limit_s="$2"
  shift 2
  say "$name (at most $limit_s s)"
  timeout "$limit_s" "$@" 2>&1 | tee "$out/$name.txt" || failed+=("$name")
}

if command -v nvidia-smi >/dev/null; then nvidia-smi >"$out/nvidia-smi.txt" || true; fi

say "installing $bundle"
# `venv --system-site-packages` would show the packages of the system's Python, and the host's own Python may itself be
# that of a virtual environment. So the folders are named; the host's pip comes along with them.
"$host_python" -m venv --clear --without-pip "$venv"
"$host_python" -c 'import sys; print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")' \
  >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/host.pth"
"$host_python" scripts/offline_bundle.py install "$bundle" --venv "$venv" 2>&1 | tee "$out/install.txt"
"$python" -m pip list --disable-pip-version-check >"$out/packages.txt"

if [[ -z "${SD15_FOLDER:-}" ]]; then
  SD15_FOLDER="$PWD/var/random-$arch"
  if [[ ! -f "$SD15_FOLDER/model_index.json" ]]; then
    say "making $SD15_FOLDER"
    rm -rf "$SD15_FOLDER"
    "$python" scripts/make_random_model.py --arch "$arch" --dtype float16 --output "$SD15_FOLDER"
  fi
fi
export SD15_FOLDER

# The host's plugins are not the project's, and what its libraries warn of is printed, not failed for: they are not the
# locked ones.
PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 stage tests 220 \
  "$python" -m pytest -p pytest_asyncio.plugin -p no:cacheprovider -W default tests/gpu -rs --durations=10

options=()
if [[ "$arch" == tiny ]]; then options=(--steps 3 --calls 3 --repeats 1 --requests "1,2" --rows "1,2,4"); fi
stage benchmark 260 "$python" -m benchmarks.gpu --device "$device" --model "$SD15_FOLDER" "${options[@]}"
grep "^{\"benchmark\"" "$out/benchmark.txt" >"$out/benchmark.json" || true
"$python" -m json.tool "$out/benchmark.json" >/dev/null || failed+=("benchmark.json")

if ((${#failed[@]})); then
  say "FAILED: ${failed[*]}; see $out"
  exit 1
fi
say "everything passed; see $out"

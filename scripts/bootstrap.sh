#!/bin/sh
# Makes .venv in this checkout with the versions of constraints.txt, from files whose hashes are in locks/. Safe to repeat: when nothing changed it does nothing.
# PYTHON=/path/to/python3 chooses the interpreter. Writes only inside the checkout (and pip's own cache).
set -eu

oldest="3.11"
cd "$(dirname "$0")/.."
venv=.venv
marker=$venv/.made-by-bootstrap # written first: a .venv without it is somebody else's
stamp=$venv/.ready              # written last: holds the hash of what was installed
log=$venv/bootstrap.log

# Settings that would make pip install somewhere else, or Python import from elsewhere.
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONPATH PYTHONHOME

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Prints the version as 3.11; nothing when $1 is no working Python. Kept to syntax that every Python knows.
version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] < tuple(int(part) for part in sys.argv[1].split(".")))' "$oldest" 2>/dev/null
}

# Sets $python to the first interpreter that is new enough.
find_python() {
    found=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        version=$(version_of "$path")
        [ -n "$version" ] || continue
        if new_enough "$path"; then
            python=$path
            return
        fi
        found="$found${found:+, }$version at $path"
    done
    fail "Python $oldest or newer is needed; found ${found:-none}${PYTHON:+ (PYTHON=$PYTHON)}." \
        "Install one (Debian 12, Ubuntu 24.04 or newer: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3 ..."
}

check_venv_module() {
    "$python" -c 'import venv, ensurepip' 2>/dev/null && return
    fail "Python $(version_of "$python") at $python cannot make virtual environments: its venv or ensurepip module is missing." \
        "On Debian or Ubuntu: apt-get install python3-venv (or python$(version_of "$python")-venv), then run this again."
}

# Anything that changes what is installed changes this.
wanted_hash() {
    "$1" - <<'PYTHON'
import hashlib, sys
digest = hashlib.sha256(sys.version.encode())
for name in ("pyproject.toml", "scripts/bootstrap.sh", "locks/torch.txt", "locks/cuda.txt", "locks/rest.txt"):
    with open(name, "rb") as file:
        digest.update(file.read())
print(digest.hexdigest())
PYTHON
}

run_pip() {
    if ! "$venv/bin/python" -m pip --disable-pip-version-check --quiet --no-input "$@" >>"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "" "Installing the pinned packages failed; the whole output is in $log." \
            "Usual reasons: no network, a full disk, a Python for which a pinned version has no wheel, or a file that is not" \
            "the one in locks/ (scripts/lock.py writes those). Run this again when that is mended."
    fi
}

# Each package at its one version, from a wheel of a known hash, and nothing that is not in the file.
install_locked() {
    lock=$1
    shift
    run_pip install --no-deps --require-hashes --only-binary :all: --requirement "locks/$lock.txt" "$@"
}

# The build of torch that pip takes here of itself, such as one for the CPU from a folder of wheels; then its hash has to
# be in the lock. Asked for hashes at once, pip would prefer the one of the public index to whatever suits the machine.
install_torch() {
    pin=$("$venv/bin/python" -c 'import re; print(re.search(r"(?m)^torch==\S+", open("locks/torch.txt").read())[0])')
    run_pip download --no-deps --only-binary :all: --dest "$venv/wheels" "$pin"
    install_locked torch --no-index --find-links "$venv/wheels"
    rm -rf "$venv/wheels"
}

# Whether the build of torch that suits this machine needs the packages of CUDA; looked up without importing it.
torch_needs_cuda() {
    "$venv/bin/python" -c 'import sys; from importlib.metadata import requires; sys.exit(not any(text.startswith(("nvidia-", "cuda-")) for text in requires("torch") or ()))'
}

if [ -d "$venv" ] && [ ! -e "$marker" ]; then
    fail "$venv exists but was not made by this script, so it is left alone." "Move it away and run this again."
fi

if [ -x "$venv/bin/python" ] && current=$(wanted_hash "$venv/bin/python" 2>/dev/null) && [ -e "$stamp" ]; then
    [ "$(cat "$stamp")" = "$current" ] && exit 0
    echo "The pinned versions changed: updating $venv."
    rm -f "$stamp"
else
    find_python
    check_venv_module
    [ ! -d "$venv" ] || echo "$venv is incomplete: making it anew."
    rm -rf "$venv"
    mkdir "$venv"
    : >"$marker"
    echo "Making $venv with Python $(version_of "$python") ($python)."
    "$python" -m venv "$venv" || fail "Making $venv with $python failed; see above."
fi

echo "Installing the pinned packages (a few minutes the first time)."
: >"$log"
# torch first and alone: by far the largest, and what a failure is most often about.
install_torch
if torch_needs_cuda; then
    install_locked cuda
fi
install_locked rest
# Without build isolation, so that the pinned build backend is used too; without dependencies, which are all there.
run_pip install --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m pip --disable-pip-version-check check >>"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    fail "" "The installed packages do not fit together; the whole output is in $log."
}
wanted_hash "$venv/bin/python" >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "$venv is ready."

# Sourced by the other scripts: find_python EXTRA... leaves in $python an interpreter that has all requirements.
#
# Taken are, in this order: $PYTHON, the project's .venv, and the python3 at hand where it has everything already.
# Otherwise .venv is created and filled once, with the versions of constraints.txt.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$repo/.venv

complete() {  # INTERPRETER EXTRA...: whether it is Python 3.11 or newer and has all requirements
    local interpreter=$1
    shift
    "$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        [ -z "$("$interpreter" "$repo/scripts/requirements.py" "$@")" ]
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        complete "$PYTHON" "$@" || fail "PYTHON=$PYTHON: needs Python 3.11 or newer with the requirements of pyproject.toml"
        python=$PYTHON
        return
    fi
    for candidate in "$venv/bin/python" python3 python; do
        if complete "$candidate" "$@"; then
            python=$candidate
            return
        fi
    done
    create_venv "$@"
    python=$venv/bin/python
}

create_venv() {
    local base
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        base=$(newest_python) || fail "no Python 3.11 or newer found; name one: PYTHON=/path/to/python3.11 bash $0"
        echo "Setting up .venv with $("$base" --version) (once; a few minutes)" >&2
        "$base" -m venv "$venv" || fail "cannot create .venv (on Debian and Ubuntu: apt install python3-venv)"
    fi
    echo "Installing the requirements into .venv" >&2
    "$venv/bin/python" "$repo/scripts/requirements.py" --all "$@" > "$venv/requirements.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$repo/constraints.txt" --requirement "$venv/requirements.txt" || fail "the installation failed"
}

newest_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

fail() {
    echo "error: $*" >&2
    exit 2
}

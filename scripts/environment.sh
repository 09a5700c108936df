# Sourced by the other scripts.
#
# read_arguments ARGUMENT... leaves in $processes what -n=K says, if anything, and in $arguments what run.py is to get:
# NET_at_DATASET, as a name or as nets/NET_at_DATASET_run.py, becomes --net and --dataset, under PocketFlow's names too.
#
# find_python EXTRA... leaves in $python an interpreter that has all requirements. It tries, in this order: $PYTHON, the
# project's .venv, python3. Where none has them, .venv is created and filled once, with the versions of constraints.txt.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$repo/.venv

read_arguments() {
    local version=
    arguments=()
    while [ $# -gt 0 ]; do
        case $1 in
            -n=* | --nb_gpus=*) processes=${1#*=} ;;
            --mobilenet_version=*) version=${1#*=} ;;
            --mobilenet_version) version=${2:-?} && shift $(($# > 1)) ;;
            *) arguments+=("$1") ;;
        esac
        shift
    done
    [[ ${processes:-1} =~ ^[1-9][0-9]*$ ]] || fail "-n=$processes: expected a number of processes"
    if [[ ${arguments[0]:-} != -* && ${arguments[0]:-} == *_at_* ]]; then
        read_entry "$(basename "${arguments[0]}" .py)"
    elif [ -n "$version" ]; then
        fail "--mobilenet_version=$version: goes with mobilenet_at_DATASET; otherwise use --net mobilenet_v$version"
    fi
}

read_entry() {  # NET_at_DATASET or NET_at_DATASET_run
    local entry=${1%_run} net dataset
    net=${entry%%_at_*} dataset=${entry#*_at_}
    case $dataset in
        ilsvrc12 | ilsvrc_12) dataset=image_folder ;;
        fmnist) dataset=fashion_mnist ;;
    esac
    case $net in
        resnet) [ "$dataset" != image_folder ] || net=resnet_imagenet ;;
        mobilenet) net=mobilenet_v${version:-1} ;;
        convnet) net=lenet ;;
        vgg) net=vgg16_bn ;;
    esac
    arguments=(--net "$net" --dataset "$dataset" "${arguments[@]:1}")
}

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

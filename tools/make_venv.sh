#!/usr/bin/env bash
# make_venv.sh PYTHON VENV: a virtual environment with the library and the pinned tools of the book and the tests.
set -euo pipefail
python=$1 venv=$2
"$python" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"The book needs Python 3.11 or later, this is {sys.version.split()[0]}. Say which one to use: make PYTHON=/path/to/python3.11 ...")
PY
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" 2>/dev/null; then
        rm -rf "$venv"
        # Debian ships the venv module's second half in a package of its own.
        package=$("$python" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")')
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "Installing $package, which this Python needs to make virtual environments"
            apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
            "$python" -m venv "$venv"
        else
            echo "This Python cannot make virtual environments. On Debian: sudo apt-get install $package" >&2
            exit 1
        fi
    fi
fi
echo "Installing the library and its tools into $venv (several GB the first time, most of it PyTorch)"
"$venv/bin/python" -m pip install --disable-pip-version-check -c constraints.txt -e '.[book,test]'

#!/usr/bin/env bash
# bash benchmarks/gpu/contact.sh CALL FOLDER ...: the first contact with a GPU, by whichever Python has CuPy (PYTHON is asked first).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
for candidate in "$python" python3 python; do
    "$candidate" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("cupy") is None)' 2>/dev/null && python=$candidate && break
done
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.gpu.contact "${1:?which call, 1 or 2}" --out "${2:?a folder for what is found}" "${@:3}"

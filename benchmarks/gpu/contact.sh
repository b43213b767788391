#!/usr/bin/env bash
# bash benchmarks/gpu/contact.sh CALL FOLDER ...: the first contact with a GPU, by whichever Python has CuPy. PYTHON is
# asked first.
if [ $# -lt 2 ]; then
    echo "usage: bash benchmarks/gpu/contact.sh {1,2} FOLDER [--before FIRST/record.json] [--seconds SECONDS]" >&2
    exit 64
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
for candidate in "$python" python3 python; do
    "$candidate" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("cupy") is None)' 2>/dev/null &&
        python=$candidate && break
done
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.gpu.contact "$1" --out "$2" "${@:3}"

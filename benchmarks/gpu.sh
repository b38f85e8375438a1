#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in one command:
#
#     benchmarks/gpu.sh
#
# Takes the Python in $PYTHON, else python3, if its torch sees a GPU; else a virtual environment in
# build/gpu, into which it installs the package and, with it, torch for CUDA. Then it makes a model
# of the size of blip2-opt-2.7b with random weights and JPEG files (9 GB in build/benchmarks), races,
# and prints the results as a table; build/benchmarks/gpu-results.json holds them in full. Arguments
# are handed on to gpu_race.py, so that
#
#     benchmarks/gpu.sh --device cpu --model tiny --images 16 --docs-images 4 --rounds 1
#
# rehearses it on a machine without a GPU.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

rehearsal=no
case " $* " in
    *" --device cpu "* | *" --device=cpu "*) rehearsal=yes ;;
esac

sees_gpu() {
    "$1" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null
}

has_package() {
    "$1" - <<'END'
import importlib.util, sys
names = "pyarrow", "rich", "safetensors", "tokenizers", "torch", "transformers", "typer"
sys.exit(any(importlib.util.find_spec(name) is None for name in names))
END
}

if [[ $rehearsal == no ]] && ! sees_gpu "$python"; then
    venv=build/gpu
    if [[ ! -x $venv/bin/python ]]; then
        "$python" -m venv "$venv"
    fi
    python=$venv/bin/python
fi
if ! has_package "$python"; then
    echo "Installing the package and what it needs into the environment of $python …" >&2
    "$python" -m pip install --quiet --editable .
fi
if [[ $rehearsal == no ]] && ! sees_gpu "$python"; then
    echo "torch sees no GPU with $python; check the driver with nvidia-smi." >&2
    exit 2
fi

exec "$python" benchmarks/gpu_race.py "$@"

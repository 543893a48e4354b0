#!/usr/bin/env bash
# What the solvation free energy of alanine dipeptide changes by from Amber14 to the potential.
#   ./run.sh                       0.5 ps a window, some minutes on two cores
#   ./run.sh "200 ps" "0 0.1 0.2 0.35 0.5 0.65 0.8 0.9 1"     for results
set -euo pipefail
time=${1:-0.5 ps}
windows=${2:-0 0.25 0.5 0.75 1}
[ -d in-water ] || openmm-nequip prepare alanine-dipeptide.pdb --padding 0.8nm \
    --ml-region "not water" --output in-water
openmm-nequip free-energy in-vacuum.yaml time="$time" --windows "$windows" \
    log_interval="5 fs" output="runs/vacuum-${time// /}"
openmm-nequip free-energy in-water/simulate.yaml time="$time" --windows "$windows" \
    heating="0.2 ps" equilibration="0.2 ps" ensemble=nvt friction=10 log_interval="10 fs" \
    output="runs/water-${time// /}"
python - "runs/water-${time// /}" "runs/vacuum-${time// /}" <<'PYTHON'
import json, sys
water, vacuum = (json.load(open(f"{folder}/free_energy.json"))["free_energy_kJ_mol"] for folder in sys.argv[1:])
error = (water["error"] ** 2 + vacuum["error"] ** 2) ** 0.5
print(f"correction of the solvation free energy: {water['value'] - vacuum['value']:.2f} ± {error:.2f} kJ/mol")
PYTHON

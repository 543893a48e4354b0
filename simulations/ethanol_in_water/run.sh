#!/usr/bin/env bash
# Ethanol in TIP3P water as ML/MM, from its SMILES.
#   ./run.sh            2 ps, two minutes on two cores
#   ./run.sh "1 ns"     for results
set -euo pipefail
time=${1:-2 ps}
[ -d ethanol-in-water ] || openmm-nequip prepare CCO --output ethanol-in-water
openmm-nequip simulate ethanol-in-water/simulate.yaml time="$time" \
    heating="1 ps" equilibration="1 ps" trajectory_interval="20 fs" \
    output="runs/ethanol-in-water-${time// /}"

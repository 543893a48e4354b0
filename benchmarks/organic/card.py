"""What `evaluate.py` found, as tables for a card."""

from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """Put the parts that are there into Markdown, in the order of the card."""
    parts = {
        "teacher": _teacher,
        "s66x8": _s66x8,
        "torsions": _torsions,
        "conformers": _conformers,
        "dissociation": _dissociation,
        "nvt_300K": lambda values: _nvt(values, 300),
        "nvt_500K": lambda values: _nvt(values, 500),
        "nve": _nve,
        "speed": _speed,
    }
    found = [write(results[name]) for name, write in parts.items() if name in results]
    return "\n\n".join(found) or "no results yet"


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Return a Markdown table; numbers get three digits."""
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


def _teacher(values: dict[str, Any]) -> str:
    def row(name: str, errors: dict[str, Any]) -> list[Any]:
        keys = ("energy_per_atom_mae_meV", "energy_per_atom_rmse_meV")
        keys += ("forces_mae_meV_per_A", "forces_rmse_meV_per_A")
        return [name, f"{errors['frames']:,}", *(errors[key] for key in keys)]

    head = ["kind", "frames", "energy MAE, meV/atom", "RMSE", "force MAE, meV/Å", "RMSE"]
    rows = [row("**all**", values)]
    if "held_out" in values:
        rows.append(row("**held out by scaffold**", values["held_out"]))
    rows += [row(name, errors) for name, errors in sorted(values["by_kind"].items())]
    elements = [
        [name, errors["mae_meV_per_A"], errors["rmse_meV_per_A"]]
        for name, errors in values["forces_by_element"].items()
    ]
    return (
        "Against ANI-2x, on the test set:\n\n"
        f"{table(head, rows)}\n\n{table(['forces on', 'MAE, meV/Å', 'RMSE'], elements)}"
    )


def _s66x8(values: dict[str, Any]) -> str:
    rows = [
        [title, *(values[method][key][which] for method in values for which in ("mae", "rmse"))]
        for title, key in (
            ("total energy, meV", "energy_meV"),
            ("energy less that at the largest distance, meV", "interaction_meV"),
            ("forces, meV/Å", "forces_meV_per_A"),
        )
    ]
    head = ["", *(f"{method}, {which}" for method in values for which in ("MAE", "RMSE"))]
    return f"Against ωB97X/6-31G(d) on S66x8, 528 dimers:\n\n{table(head, rows)}"


def _torsions(values: dict[str, Any]) -> str:
    rows = [
        [name, v["rms_meV"], v["height_meV"], v["reference_height_meV"]]
        for name, v in values.items()
    ]
    mean = sum(v["rms_meV"] for v in values.values()) / len(values)
    head = ["torsion", "RMS difference, meV", "height, meV", "of ANI-2x"]
    title = f"Torsion profiles against ANI-2x, at geometries of MMFF94 (mean {mean:.1f} meV):"
    return f"{title}\n\n{table(head, rows)}"


def _conformers(values: dict[str, Any]) -> str:
    return (
        f"Energies of {values['conformers']} conformers of {values['molecules']} drugs, less the "
        f"mean of each, against ANI-2x: MAE {values['mae_meV']:.1f} meV, RMSE "
        f"{values['rmse_meV']:.1f} meV (their spread is {values['spread_meV']:.0f} meV); the "
        f"lowest is the same in {values['same_lowest']} of {values['molecules']}."
    )


def _dissociation(values: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{v['repulsive_down_to_A']:.2f}",
            f"{v['of_A']:.2f}",
            f"{v['highest_eV']:.1f}",
            f"{v['apart_eV']:.1f}",
            f"{v['reference_apart_eV']:.1f}",
            v["work_difference_meV"],
        ]
        for name, v in values.items()
    ]
    head = ["", "repulsive down to, Å", "looked at from, Å", "highest beyond, eV"]
    head += ["apart, eV", "apart, ANI-2x", "largest difference of energy and work, meV"]
    return f"Bonds compressed and broken, energies less that at rest:\n\n{table(head, rows)}"


def _nvt(values: dict[str, Any], temperature: int) -> str:
    changed = {name: v for name, v in values.items() if v["change"]}
    times = sorted({v["ps"] for v in values.values()})
    text = (
        f"NVT at {temperature} K, {' or '.join(f'{t:g}' for t in times)} ps each: "
        f"{len(values) - len(changed)} of {len(values)} drugs keep all their bonds"
    )
    lines = [f"- {name}: {v['change']} at {v['at_ps']:g} ps" for name, v in changed.items()]
    return "\n".join([text + (":" if lines else "."), *([""] if lines else []), *lines])


def _nve(values: dict[str, Any]) -> str:
    rows = [
        [
            name,
            v["ps"],
            f"{v['drift_meV_per_atom_per_ps']:.4f} ± {v['drift_error_meV_per_atom_per_ps']:.4f}",
            f"{v['fluctuation_meV_per_atom']:.3f}",
        ]
        for name, v in values.items()
    ]
    head = ["NVE, 0.5 fs", "ps", "drift, meV/atom/ps", "fluctuation, meV/atom"]
    return table(head, rows)


def _speed(values: dict[str, Any]) -> str:
    ms, machine = values["ms_per_step"], values["machine"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    ratio = ms["ANI-2x"] / ms["potential"]
    return (
        f"OpenMM step of aspirin ({where}): {ms['potential']:.2f} ms, the ANI-2x ensemble "
        f"{ms['ANI-2x']:.2f} ms: {ratio:.1f} times as fast."
    )

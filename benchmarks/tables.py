"""Put the figures of a benchmark into the documentation: tables and plot from its JSON file.

    openmm-nequip benchmark results --full
    python benchmarks/tables.py results/benchmark.json

Several files are joined, of runs of several parts on one machine; what was measured in two of them
is taken from the first. The script

replaces what is between the two markers in ``docs/benchmark.md`` and draws
``docs/images/benchmark.png``. With ``--print`` it prints the Markdown and changes nothing.
"""

import argparse
from pathlib import Path
from typing import Any

from openmm_nequip.benchmarking.results import plot, read, tables

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "benchmark.md", DOCS / "images" / "benchmark.png"
BEGIN, END = "<!-- figures: benchmarks/tables.py -->", "<!-- end of figures -->"


def markdown(document: dict[str, Any], picture: str | None) -> str:
    """Return machine, versions, plot and tables of a run as Markdown."""
    machine, versions = document["machine"], document["versions"]
    shown = (
        "openmm-nequip", "torch", "numba", "OpenMM", "openmmml", "nequip", "e3nn", "mace-torch",
        "torchani",
    )  # fmt: skip
    place = machine["gpu"] if machine["device"].startswith("cuda") else machine["cpu"]
    parts = [
        f"{place}, {machine['threads']} threads of {machine['cores']} cores, OpenMM platform "
        f"{machine['openmm_platform']}, {document['started'][:10]}; "
        + ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
        + f". Medians of {document['settings']['repeats']} alternating repeats, with quartiles."
    ]
    if picture is not None:
        parts.append(f"![Time against number of atoms]({picture})")
    for table in tables(document):
        parts += [f"### {table.title}", table.markdown()]
    return "\n\n".join(parts)


def join(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first document with the rows of all of them."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for document in documents:
        if document["machine"]["cpu"] != documents[0]["machine"]["cpu"]:
            raise SystemExit("the files are of different machines")
        for row in document["rows"]:
            key = tuple(row[name] for name in ("part", "model", "atoms", "engine"))
            if key not in rows or rows[key]["status"] != "measured":
                rows[key] = row
    versions = {name: v for document in documents for name, v in document["versions"].items()}
    cases = list(dict.fromkeys(key[:3] for key in rows))
    in_order = sorted(rows, key=lambda key: cases.index(key[:3]))
    return {**documents[0], "versions": versions, "rows": [rows[key] for key in in_order]}


def main() -> None:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="benchmark.json of a run")
    parser.add_argument("--print", action="store_true", help="print the Markdown only")
    arguments = parser.parse_args()
    document = join([read(file) for file in arguments.files])
    if arguments.print:
        print(markdown(document, None))
        return
    picture = "images/benchmark.png" if plot(document, PICTURE) else None
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    text = f"{before}{BEGIN}\n\n{markdown(document, picture)}\n\n{END}{after}"
    PAGE.write_text(text)


if __name__ == "__main__":
    main()

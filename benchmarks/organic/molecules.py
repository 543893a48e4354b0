"""The molecules of the data set: small ones, substituted cores, fragments of drugs, peptides.

Everything is neutral, closed-shell and made of H, C, N, O, F, S and Cl. Nothing is read from a file
and nothing is left to chance but what the seed of a generator decides.
"""

import itertools
import re
from hashlib import sha256

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import BRICS
from rdkit.Chem.Scaffolds import MurckoScaffold
from teacher import ELEMENTS

RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]

#: Solvents, functional groups and inorganic molecules.
SMALL = """
O N C [H][H] CC C=C C#C CCC C=CC C#CC CCCC CC(C)C C=CC=C C1CC1 C1CCC1 C1CCCC1 C1CCCCC1 C=C=C CO CCO
CCCO CC(C)O CC(C)(C)O OCCO OCC(O)CO COC CCOCC C1CO1 C1COC1 C1CCOC1 C1CCCCO1 C1COCCO1 COCCOC C=O CC=O
CCC=O CC(=O)C CCC(=O)C O=C1CCCCC1 OC=O CC(=O)O CCC(=O)O COC=O COC(=O)C CCOC(=O)C O=C1CCCO1
OC(=O)C(=O)O O=C=O CC(=O)OC(=O)C C=C=O C=CC=O CC(=O)CC(=O)C OO COOC CC=C(C)O C=CO CN CNC CN(C)C CCN
CCCN CCN(CC)CC NCCN C1CN1 C1CCNC1 C1CCNCC1 C1CNCCN1 C1COCCN1 NN CNN CN(C)N NO CNO NC=O CNC=O
CN(C)C=O CC(=O)N CC(=O)NC CC(=O)N(C)C NC(=O)N CNC(=O)N CN(C)C(=O)N(C)C O=C1CCCN1 CN1CCCC1=O C#N CC#N
CCC#N C=CC#N N#CC#N C=N CC=N CC=NC CC=NO NC=N CN=CN NC(=N)N CN=NC N#N C=[N+]=[N-] CN=[N+]=[N-]
C[N+](=O)[O-] CC[N+](=O)[O-] CON=O CO[N+](=O)[O-] CN=C=O N=C=O CN=C=S OCC#N NCC#N NCCO OCC(=O)O
NCC(=O)O F CF CCF FCF FC(F)F FC(F)(F)F CC(F)F CC(F)(F)F C=CF C=C(F)F FC(F)=C(F)F OCC(F)(F)F CC(=O)F
FOF COC(F)(F)F Cl CCl CCCl ClCCl ClC(Cl)Cl ClC(Cl)(Cl)Cl CC(Cl)Cl C=CCl C=C(Cl)Cl ClC=C(Cl)Cl
CC(=O)Cl ClCC#N ClCCO FC(F)Cl S CS CCS CSC CCSCC CSSC CSS C1CS1 C1CCSC1 C1CSCCS1 C=S CC(=S)C NC(=S)N
CC(=O)S CC(=O)SC CC(=S)N S=C=S O=S=O CS(=O)C CS(=O)(=O)C CS(=O)(=O)N CS(=O)(=O)NC CS(=O)(=O)O
CS(=O)O COS(=O)(=O)OC O=S1(=O)CCCC1 NCCS OCCS SCCS CS(=O)(=O)F CS(=O)(=O)Cl C=CS(=O)(=O)C CSCC(=O)O
CSCCC(N)C(=O)O c1ccccc1 Cc1ccccc1 Oc1ccccc1 Nc1ccccc1 Fc1ccccc1 Clc1ccccc1 Sc1ccccc1 O=Cc1ccccc1
N#Cc1ccccc1 C=Cc1ccccc1 COc1ccccc1 CC(=O)c1ccccc1 OC(=O)c1ccccc1 NC(=O)c1ccccc1 CSc1ccccc1
O=[N+]([O-])c1ccccc1 FC(F)(F)c1ccccc1 c1ccncc1 c1cnccn1 c1cncnc1 c1ccnnc1 c1ncncn1 c1cc[nH]c1
c1cnc[nH]1 c1cn[nH]c1 c1nc[nH]n1 c1nn[nH]n1 c1c[nH]nn1 c1ccoc1 c1cocn1 c1conc1 c1nnco1 c1ccsc1
c1cscn1 c1csnc1 c1nncs1 C1=CCC=C1 C1=CCCC1 C1=CCCCC1 c1ccc2ccccc2c1 c1ccc2[nH]ccc2c1 c1ccc2occc2c1
c1ccc2sccc2c1 c1ccc2[nH]cnc2c1 c1ccc2ncccc2c1 c1ccc2nccnc2c1 c1ncc2nc[nH]c2n1 O=c1cc[nH]c(=O)[nH]1
Cc1c[nH]c(=O)[nH]c1=O Nc1cc[nH]c(=O)n1 Nc1ncnc2[nH]cnc12 Nc1nc2[nH]cnc2c(=O)[nH]1 O=c1cccc[nH]1
Oc1ccccn1 O=C1C=CC(=O)C=C1 O=C1NC(=O)c2ccccc12 C1CC2CCC1C2 C1C2CC3CC1CC(C2)C3 C12C3C4C1C5C2C3C45
"""

#: Rings and chains whose free places, written ``*``, take substituents.
CORES = """
*c1ccccc1 *c1ccc(*)cc1 *c1cccc(*)c1 *c1ccccc1* *c1ccc(*)c(*)c1 *c1ccncc1 *c1ccc(*)nc1 *c1cccnc1*
*c1cnc(*)nc1 *c1nccc(*)n1 *c1cnc(*)cn1 *c1ccc(*)nn1 *c1ccc[nH]1 *c1ccn(*)c1 *c1cn(*)cn1
*c1nc(*)c[nH]1 *c1cnn(*)c1 *c1cc(*)n[nH]1 *c1ccoc1 *c1ccc(*)o1 *c1coc(*)n1 *c1cc(*)on1 *c1nnc(*)o1
*c1ccsc1 *c1ccc(*)s1 *c1csc(*)n1 *c1nnc(*)s1 *c1nc(*)no1 *c1ccc2[nH]ccc2c1 *c1cn(*)c2ccccc12
*c1ccc2occc2c1 *c1ccc2[nH]c(*)nc2c1 *c1ccc2sc(*)nc2c1 *c1ccc2ncccc2c1 *c1ncnc2ccccc12
*c1ccc2ccccc2c1 *n1cnc2c(*)ncnc12 *C1CCCCC1 *C1CCC(*)CC1 *C1CCCC1 *C1CC1 *C1CCC1 *N1CCCC1 *C1CCCN1*
*N1CCCCC1 *N1CCC(*)CC1 *N1CCN(*)CC1 *N1CCOCC1 *C1CCOCC1 *C1CCCO1 *N1CCSCC1 *C1CNC1 *N1CC(*)C1
*C1COC1 *C1=CCCCC1 *N1CCCC1=O *N1C(=O)CCC1=O *c1cc(=O)cc(*)[nH]1 *n1ccc(=O)[nH]c1=O
*N1C(=O)NC(*)C1=O *C(=O)N* *C(=O)O* *S(=O)(=O)N* *C=C* *C#C* *CC* *CO* *CN* *CS* *C(=O)* *C(*)(C)C
*NC(=O)N* *OC(=O)N* *N=C(*)C *C(=O)NN* *SS* *C(=O)C=C* *CS(=O)*
"""

#: Bonds of sulfur, which are rare in the others.
SULFUR = """
*SS* *CSS* *CSSC* *CSC* *SC* *C(=O)S* *CS(=O)C* *CS(=O)(=O)C* *CS(=O)(=O)N(*)* *c1ccc(S*)cc1
"""

#: Barriers that are high, or on which the members disagree more: amides, esters, bonds of S and N.
TURNED = """
CSSC CCSSC CCSSCC CC(C)SSC CC(C)SSC(C)C CCCSSC OCCSSC NCCSSCCN OCCSSCCO CSSCC(N)=O CSSCC(=O)OC
CSSc1ccccc1 c1ccc(SSc2ccccc2)cc1 CSSCC(NC(C)=O)C(=O)NC CSSS CSSSC C1CCSSC1 C1CSSC1 CC(=O)NC CC(=O)N
NC=O CNC=O CN(C)C=O CC(=O)N(C)C CCNC(C)=O CCC(=O)NC CC(C)NC(C)=O CNC(=O)C(C)C CNC(=O)c1ccccc1
CC(=O)Nc1ccccc1 CNC(=O)C=C CNC(=O)CO CNC(=O)CN CNC(=O)CNC=O CNC(N)=O CNC(=O)NC CN(C)C(=O)NC
COC(=O)NC COC(N)=O CNC(=O)N(C)OC CC(=O)NN CC(=O)NO CC(=O)NC(C)=O CNC(C)=S NC(C)=S CNC(=N)N
CC(=O)N1CCCC1 CC(=O)N1CCCCC1 O=CN1CCOCC1 CC(=O)OC CC(=O)OCC COC=O CC(=O)Oc1ccccc1 COC(=O)C=C
COC(=O)c1ccccc1 CC(=O)SC CS(=O)(=O)NC CS(=O)(=O)N(C)C CS(=O)(=O)Nc1ccccc1 CN=NC CC=NC CC=NO CC=NN
C=CC=C C=CC=O C=Cc1ccccc1 O=Cc1ccccc1 c1ccccc1-c1ccccc1 c1ccc(-c2ccccn2)cc1 c1cnc(-c2ncccn2)nc1
Nc1ccccc1 CNc1ccccc1 COc1ccccc1 COC=C CN(C)N COOC CONC NCCO ClCCCl FCCF OCCF NCCF ClCCO COCCOC
CSCCSC
"""

#: What is put there.
SUBSTITUENTS = """
*C *CC *C(C)C *C1CC1 *C=C *C#C *CO *O *OC *OC(F)(F)F *N *NC *N(C)C *CN *C#N *F *Cl *C(F)(F)F *C(F)F
*S *SC *C=O *C(C)=O *C(=O)O *C(=O)OC *C(N)=O *C(=O)NC *NC(C)=O *S(C)(=O)=O *S(N)(=O)=O *[N+](=O)[O-]
*NC(N)=O *CCO *OCC *N=[N+]=[N-] *c1ccccc1 *c1ccncc1 *c1ccco1 *c1cc[nH]n1 *Cc1ccccc1 *N1CCOCC1
*C1CCNCC1
"""

#: Drugs and natural products, which BRICS cuts into fragments that are put together anew.
DRUGS = """
CC(=O)Oc1ccccc1C(=O)O CC(=O)Nc1ccc(O)cc1 CC(C)Cc1ccc(C(C)C(=O)O)cc1 Cn1cnc2c1c(=O)n(C)c(=O)n2C
CN1CCCC1c1cccnc1 COc1ccc2cc(C(C)C(=O)O)ccc2c1 CCN(CC)CC(=O)Nc1c(C)cccc1C CCOC(=O)c1ccc(N)cc1
CCN(CC)CCOC(=O)c1ccc(N)cc1 CC(C)NCC(O)COc1cccc2ccccc12 CC(C)NCC(O)COc1ccc(CC(N)=O)cc1
COCCc1ccc(OCC(O)CNC(C)C)cc1 CNCCC(Oc1ccc(C(F)(F)F)cc1)c1ccccc1 CNC1CCC(c2ccc(Cl)c(Cl)c2)c2ccccc21
CN(C)CCCC1(c2ccc(F)cc2)OCc2cc(C#N)ccc21 CN(C)CCC=C1c2ccccc2CCc2ccccc21
CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21 Clc1ccccc1C1=NCc2nnc(C)n2-c2ccc(Cl)cc21
NC(=O)N1c2ccccc2C=Cc2ccccc21 O=C1NC(=O)C(c2ccccc2)(c2ccccc2)N1 CC(C)(C)NCC(O)c1ccc(O)c(CO)c1
CNCC(O)c1ccc(O)c(O)c1 NCCc1ccc(O)c(O)c1 NCCc1c[nH]c2ccc(O)cc12 NCCc1c[nH]cn1
COc1ccc2[nH]cc(CCNC(C)=O)c2c1 Nc1ccc(S(=O)(=O)Nc2ccccn2)cc1 Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1
COc1cc(Cc2cnc(N)nc2N)cc(OC)c1OC NS(=O)(=O)c1cc(Cl)c(NCc2ccco2)cc1C(=O)O
NS(=O)(=O)c1cc2c(cc1Cl)NCNS2(=O)=O Cc1ccc(-c2cc(C(F)(F)F)nn2-c2ccc(S(N)(=O)=O)cc2)cc1
CS(=O)(=O)c1ccc(C2=C(c3ccccc3)C(=O)OC2)cc1 O=C(O)Cc1ccccc1Nc1c(Cl)cccc1Cl
Cc1cccc(Nc2ccccc2C(=O)O)c1C COc1ccc2c(c1)c(CC(=O)O)c(C)n2C(=O)c1ccc(Cl)cc1 OC(c1ccc(Cl)cc1)c1ccccc1
CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O O=C(O)c1cn(C2CC2)c2cc(N3CCNCC3)c(F)cc2c1=O
CC(=O)NCC1CN(c2ccc(N3CCOCC3)c(F)c2)C(=O)O1 O=C(O)c1cnccn1 NNC(=O)c1ccncc1 NC(=O)c1cnccn1
CCC(CO)NCCNC(CC)CO OC(Cn1cncn1)(Cn1cncn1)c1ccc(F)cc1F Clc1ccc(C(OCCn2ccnc2)c2ccc(Cl)cc2Cl)cc1
Cc1ccc(C(=O)Nc2ccc(C)c(Nc3nccc(-c4cccnc4)n3)c2)cc1 COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1
C#Cc1cccc(Nc2ncnc3cc(OC)c(OC)cc23)c1 CNC(=O)c1cc(Oc2ccc(NC(=O)Nc3ccc(Cl)c(C(F)(F)F)c3)cc2)ccn1
Fc1ccc(Cn2cccc2)cc1 CC(C)n1c(C=CC(O)CC(O)CC(=O)O)c(-c2ccc(F)cc2)c2ccccc21
CC(C)c1nc(N(C)S(C)(=O)=O)nc(-c2ccc(F)cc2)c1C=CC(O)CC(O)CC(=O)O
CCOC(=O)C1=C(COCCN)NC(C)=C(C(=O)OC)C1c1ccccc1Cl COC(=O)C1=C(C)NC(C)=C(C(=O)OC)C1c1ccccc1[N+](=O)[O-]
CCCc1nn(C)c2c1nc(-c1cc(S(=O)(=O)N3CCN(C)CC3)ccc1OCC)[nH]c2=O
COc1ccc(CCN(C)CCCC(C#N)(C(C)C)c2ccc(OC)c(OC)c2)cc1OC COc1ccc2nc(S(=O)Cc3ncc(C)c(OC)c3C)[nH]c2c1
CNC(=C[N+](=O)[O-])NCCSCc1ccc(CN(C)C)o1 CN=C(NC#N)NCCSCc1nc[nH]c1C
OCCN1CCN(CCCN2c3ccccc3Sc3ccc(Cl)cc32)CC1 O=C(CCCN1CCC(O)(c2ccc(Cl)cc2)CC1)c1ccc(F)cc1
CN1CCN(C2=Nc3cc(Cl)ccc3Nc3ccccc32)CC1 Cc1cc2c(s1)Nc1ccccc1N=C2N1CCN(C)CC1
O=C1CCc2ccc(OCCCCN3CCN(c4cccc(Cl)c4Cl)CC3)cc2N1 CCC(=O)N(c1ccccc1)C1CCN(CCc2ccccc2)CC1
CN(C)CC1CCCCC1(O)c1cccc(OC)c1 CN1CCC23c4c5ccc(O)c4OC2C(O)C=CC3C1C5
CC12CCC3C(CCC4=CC(=O)CCC43C)C1CCC2O CC(=O)C1CCC2C3CCC4=CC(=O)CCC4(C)C3CCC12C
CC12CCC3c4ccc(O)cc4CCC3C1CCC2O OCC1OC(O)C(O)C(O)C1O OCC1OC(n2ccc(=O)[nH]c2=O)C(O)C1O
Nc1ccn(C2CSC(CO)O2)c(=O)n1 Cc1cn(C2CC(N=[N+]=[N-])C(CO)O2)c(=O)[nH]c1=O Nc1nc2c(ncn2COCCO)c(=O)[nH]1
CC1=C(C=CC(C)=CC=CC(C)=CC(=O)O)C(C)(C)CCC1 CC(C)=CCCC(C)=CCO CC1=CCC(C(C)=C)CC1
CC1(C)C2CCC1(C)C(=O)C2 Cc1ccc(C(C)C)c(O)c1 COc1cc(C=O)ccc1O O=C(C=Cc1ccccc1)c1ccccc1
COc1cc(C=CC(=O)O)ccc1O O=c1cc(-c2ccccc2)oc2ccccc12 O=c1ccc2ccccc2o1 CSCC(C)C(=O)N1CCCC1C(=O)O
CCOC(=O)C(CCc1ccccc1)NC(C)C(=O)N1CCCC1C(=O)O CCCCc1nc(Cl)c(CO)n1Cc1ccc(-c2ccccc2)cc1 CC(N)Cc1ccccc1
CNC(C)C(O)c1ccccc1 CC(C)(C)C(O)C=Cc1ccc2c(c1)OCO2 c1ccc2c(c1)OCO2 CC1CCC(C(C)C)C(O)C1
CC(Cl)C(=O)Nc1ccc(Cl)c(Cl)c1 CCNc1nc(Cl)nc(NC(C)C)n1 CNC(=O)Oc1cccc2ccccc12 CC(C)Oc1ccccc1OC(=O)NC
CN(C)C(=O)Nc1ccc(Cl)c(Cl)c1 O=C(O)COc1ccc(Cl)cc1Cl CCSC(=O)N(CC)CC CSC(=O)c1cccc2nnsc12
CC(=NOC(=O)NC)SC Clc1ccc(CN2CCN=C2N[N+](=O)[O-])cn1 CC1COc2c(N3CCN(C)CC3)c(F)cc3c(=O)c(C(=O)O)cn1c23
"""

_ISOTOPE = re.compile(r"\[\d+\*\]")  # how BRICS marks the kind of a cut bond


def read(text: str) -> list[str]:
    """Return the canonical SMILES in a text, each once, in order."""
    found: dict[str, None] = {}
    for smiles in text.split():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            raise ValueError(f"'{smiles}' is not SMILES")
        found[Chem.MolToSmiles(molecule)] = None
    return list(found)


def is_in_domain(smiles: str, max_heavy: int = 40) -> bool:
    """Return whether it is a neutral closed-shell molecule of the right elements and size."""
    molecule = Chem.MolFromSmiles(smiles)
    return (
        molecule is not None
        and 0 < molecule.GetNumAtoms() <= max_heavy
        and Chem.GetFormalCharge(molecule) == 0
        and all(
            atom.GetSymbol() in ELEMENTS and atom.GetNumRadicalElectrons() == 0
            for atom in molecule.GetAtoms()
        )
    )


def substituted(rng: np.random.Generator, count: int, cores: str = CORES) -> list[str]:
    """Return `count` of the substituted cores, chosen at random."""
    return _put_together(cores.split(), SUBSTITUENTS.split(), rng, count)


def recombined(rng: np.random.Generator, count: int) -> list[str]:
    """Return `count` molecules put together at random from the BRICS fragments of drugs.

    The rules of cutting are those of Degen et al., ChemMedChem 3, 1503 (2008); any two fragments
    are put together.
    """
    pieces: set[str] = set()
    for smiles in read(DRUGS):
        pieces |= BRICS.BRICSDecompose(Chem.MolFromSmiles(smiles))
    small = {_ISOTOPE.sub("*", piece) for piece in pieces}
    small = {piece for piece in small if Chem.MolFromSmiles(piece).GetNumAtoms() <= 12}
    cores = sorted(piece for piece in small if piece.count("*") <= 3)
    ends = sorted(piece for piece in small if piece.count("*") == 1)
    return _put_together(cores, ends, rng, count)


def _put_together(
    cores: list[str], substituents: list[str], rng: np.random.Generator, count: int
) -> list[str]:
    """Put random substituents, or hydrogen, on random cores."""
    found: dict[str, None] = {}
    while len(found) < count:
        core = str(rng.choice(cores))
        chosen = rng.choice(["*[H]", *substituents], core.count("*"))
        smiles = _join(core, tuple(map(str, chosen)))
        if smiles is not None and is_in_domain(smiles, max_heavy=16):
            found[smiles] = None
    return list(found)


def _join(core: str, substituents: tuple[str, ...]) -> str | None:
    """Put a substituent on every free place of a core."""
    molecule = Chem.MolFromSmiles(core)
    for substituent in substituents:
        product = Chem.CombineMols(molecule, Chem.MolFromSmiles(substituent))
        editable = Chem.RWMol(product)
        offset = molecule.GetNumAtoms()
        first = next(a.GetIdx() for a in molecule.GetAtoms() if a.GetAtomicNum() == 0)
        second = next(
            a.GetIdx() for a in product.GetAtoms() if a.GetIdx() >= offset and a.GetAtomicNum() == 0
        )
        ends = [editable.GetAtomWithIdx(k).GetNeighbors()[0].GetIdx() for k in (first, second)]
        editable.AddBond(*ends, Chem.BondType.SINGLE)
        for k in sorted((first, second), reverse=True):
            editable.RemoveAtom(k)
        molecule = editable.GetMol()
    try:
        Chem.SanitizeMol(molecule)
    except Chem.MolSanitizeException:
        return None
    return Chem.MolToSmiles(Chem.RemoveHs(molecule))


#: Side chains of the amino acids that are neutral in water or can be.
_SIDE_CHAINS = {
    "Ala": "C", "Val": "C(C)C", "Leu": "CC(C)C", "Ile": "C(C)CC", "Met": "CCSC", "Phe": "Cc1ccccc1",
    "Tyr": "Cc1ccc(O)cc1", "Trp": "Cc1c[nH]c2ccccc12", "Ser": "CO", "Thr": "C(C)O", "Cys": "CS",
    "Asn": "CC(N)=O", "Gln": "CCC(N)=O", "Asp": "CC(=O)O", "Glu": "CCC(=O)O", "His": "Cc1cnc[nH]1",
    "Lys": "CCCCN", "Arg": "CCCNC(N)=N",
}  # fmt: skip


def peptides(rng: np.random.Generator, count: int) -> list[str]:
    """Return all capped amino acids and `count` capped dipeptides."""
    residues = ["NCC(=O)", "N1CCC[C@H]1C(=O)"]
    residues += [f"N[C@@H]({chain})C(=O)" for chain in _SIDE_CHAINS.values()]
    single = [f"CC(=O){residue}NC" for residue in residues]
    pairs = [f"CC(=O){a}{b}NC" for a, b in itertools.product(residues, repeat=2)]
    chosen = [pairs[k] for k in rng.permutation(len(pairs))[:count]]
    return read(" ".join(single + chosen))


def scaffold(smiles: str) -> str:
    """Return the rings and what connects them (Bemis and Murcko 1996), or all if there are none."""
    found = MurckoScaffold.MurckoScaffoldSmiles(smiles)
    return found or smiles


def split(smiles: str) -> str:
    """Return ``'test'``, ``'validation'`` or ``'train'``, the same for molecules of one scaffold.

    Single rings are always for training, because half of chemistry is made of each of them.
    """
    frame = scaffold(smiles)
    molecule = Chem.MolFromSmiles(frame)
    if molecule.GetRingInfo().NumRings() <= 1 and frame != smiles:
        return "train"
    number = int(sha256(frame.encode()).hexdigest()[:8], 16) % 100
    if molecule.GetNumHeavyAtoms() < 5:
        return "train"
    return "test" if number < 8 else "validation" if number < 12 else "train"

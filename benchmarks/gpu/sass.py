"""Machine code of a kernel, taken apart: assembled by ptxas, disassembled by nvdisasm, and its loops found.

A loop is everything that runs between its head and a branch back to it. What a function call runs stands outside.
"""

import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:(@!?\w+)\s+)?([A-Z]\w*(?:\.[\w.]+)?)\s*(.*?)\s*;")
NOT_FOLLOWED = ("BRX", "JMX", "JMP")
"""Branches whose target is not a label."""
LABEL = re.compile(r"^(\.L_\w+):")
WIDTHS = {"128": 16, "64": 8, "U8": 1, "S8": 1, "U16": 2, "S16": 2}
"""Bytes that an access moves, by a part of its name; others move four."""


class Instruction(NamedTuple):
    """`guard` is the predicate, empty without one; `target` the label of a branch."""

    guard: str
    name: str
    operands: str
    target: str

    @property
    def ends(self) -> bool:
        """Whether a block ends here."""
        return self.name.split(".")[0] in ("BRA", "EXIT", "RET")

    @property
    def goes_on(self) -> bool:
        """Whether the next instruction may follow."""
        # Without a guard, a predicate before the label makes a branch conditional, too.
        return not self.ends or bool(self.guard) or (bool(self.target) and not self.operands.startswith("`("))


class Assembled(NamedTuple):
    """What ptxas says of a kernel, and its instructions in blocks: {label: [instruction]}, in their order."""

    registers: int
    spilled: int
    blocks: dict[str, list[Instruction]]


def tool(name: str) -> str | None:
    """A program of the CUDA toolkit: on the path, in `/usr/local/cuda`, or from a wheel."""
    found = shutil.which(name) or shutil.which(f"/usr/local/cuda/bin/{name}")
    if found is None and importlib.util.find_spec("nvidia") is not None:
        roots = importlib.util.find_spec("nvidia").submodule_search_locations
        found = next((str(path) for root in roots for path in Path(root).glob(f"*/bin/{name}")), None)
    return found


def run(*command: str) -> str:
    """What a program prints, errors behind it."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {done.stderr}")
    return done.stdout + done.stderr


def assembled(ptx: str, cc: tuple[int, int]) -> Assembled:
    """Assemble and disassemble the one kernel of a PTX text."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), str(Path(folder, "kernel.cubin"))
        source.write_text(ptx)
        said = run(tool("ptxas"), "-v", f"-arch=sm_{cc[0]}{cc[1]}", str(source), "-o", binary)
        text = run(tool("nvdisasm"), "-c", binary)
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    return Assembled(registers, spilled, blocks_of(text))


def blocks_of(text: str) -> dict[str, list[Instruction]]:
    """Blocks of a disassembled kernel. A block without a label gets one."""
    blocks, label = {}, "entry"
    for line in text.splitlines():
        if marked := LABEL.match(line.strip()):
            label = marked[1]
            blocks.setdefault(label, [])
        elif found := INSTRUCTION.search(line):
            guard, name, operands = found.groups()
            if name.split(".")[0] in NOT_FOLLOWED:
                raise NotImplementedError(f"a branch whose target is not a label: {line.strip()}")
            target = re.search(r"`\((\.L_\w+)\)", operands) if name.startswith("BRA") else None
            instruction = Instruction(guard or "", name, operands, target[1] if target else "")
            blocks.setdefault(label, []).append(instruction)
            if instruction.ends:
                label = f"block {len(blocks)}"
    return blocks


def followers(blocks: dict[str, list[Instruction]]) -> dict[str, list[str]]:
    """The blocks that may follow each block."""
    labels = list(blocks)
    after = dict(zip(labels, labels[1:]))
    found = {}
    for label, block in blocks.items():
        found[label] = [instruction.target for instruction in block if instruction.target]
        if label in after and (not block or block[-1].goes_on):
            found[label].append(after[label])
    return found


def loops(blocks: dict[str, list[Instruction]]) -> list[set[str]]:
    """The blocks of each loop; a loop that lies in another comes before it."""
    follow = followers(blocks)
    above = _dominators(follow, next(iter(blocks)))
    before = {label: [one for one in above if label in follow[one]] for label in above}
    found = {}
    for label in above:
        for head in set(follow[label]) & above[label]:
            # Everything from which the branch back is reached without passing the head.
            body, todo = found.setdefault(head, {head}), [label]
            while todo:
                one = todo.pop()
                if one not in body:
                    body.add(one)
                    todo += before[one]
    return sorted(found.values(), key=len)


def _dominators(follow: dict[str, list[str]], entry: str) -> dict[str, set[str]]:
    """Of each block that is reached: the blocks that lie on every way to it, itself among them."""
    reached, todo = [], [entry]
    while todo:
        label = todo.pop()
        if label not in reached:
            reached.append(label)
            todo += follow[label]
    before = {label: [one for one in reached if label in follow[one]] for label in reached}
    above = {label: set(reached) for label in reached}
    above[entry] = {entry}
    changed = True
    while changed:
        changed = False
        for label in reached[1:]:
            now = {label} | functools.reduce(set.intersection, (above[one] for one in before[label]))
            changed |= now != above[label]
            above[label] = now
    return above


def count(code: list[Instruction]) -> Counter:
    """How many instructions there are in all, and by name: MUFU.EX2 counts as `MUFU` and as `MUFU.EX2`.

    `loaded` and `stored` are bytes of global memory.
    """
    counts = Counter(instructions=len(code))
    for instruction in code:
        parts = instruction.name.split(".")
        counts.update(".".join(parts[: end + 1]) for end in range(len(parts)))
        for kind, names in (("loaded", ("LDG", "LD")), ("stored", ("STG", "ST"))):
            if parts[0] in names:
                counts[kind] += next((WIDTHS[part] for part in parts if part in WIDTHS), 4)
    return counts

"""The stored figures: what made them, whether they can be compared with, and what became more or less."""

import json
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from counts import Profile

# Functions that are kept of a case; what is not among them is small.
FUNCTIONS_KEPT = 40
FUNCTIONS_SHOWN = 8
# Processor features that programs find under valgrind, and choose their code by.
CPU_FEATURES = frozenset(
    "abm aes avx avx2 bmi1 bmi2 f16c fma movbe pclmulqdq popcnt rdrand rdseed sse4_1 sse4_2 ssse3".split()
)
REMEDY = "store figures of this machine and compiler with `make bench-baseline`, on a commit whose speed is known"


@dataclass(frozen=True)
class Maker:
    """What instructions depend on besides the program."""

    rustc: str
    valgrind: str
    libc: str
    cpu: str

    @classmethod
    def here(cls) -> "Maker":
        return cls(
            rustc=said("rustc", "-V"),
            valgrind=said("valgrind", "--version"),
            libc=" ".join(platform.libc_ver()),
            cpu=f"{platform.machine()}: {features(Path('/proc/cpuinfo').read_text())}",
        )

    def differences(self, other: "Maker") -> list[str]:
        mine, others = asdict(self), asdict(other)
        return [f"{name}: {mine[name]} in the baseline, {others[name]} here" for name in mine if mine[name] != others[name]]


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def features(cpuinfo: str) -> str:
    found = re.search(r"^flags\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return " ".join(sorted(CPU_FEATURES & set(found[1].split()))) if found else ""


@dataclass(frozen=True)
class Baseline:
    date: str
    maker: Maker
    cases: dict[str, Profile]

    @classmethod
    def load(cls, path: Path) -> "Baseline":
        stored = json.loads(path.read_text())
        cases = {name: Profile(**case) for name, case in stored["cases"].items()}
        return cls(stored["date"], Maker(**stored["maker"]), cases)

    def store(self, path: Path) -> None:
        cases = {
            name: {
                "instructions": round(case.instructions),
                "functions": {name: round(spent) for name, spent in case.largest(FUNCTIONS_KEPT).items() if round(spent) > 0},
            }
            for name, case in sorted(self.cases.items())
        }
        stored = {"date": self.date, "maker": asdict(self.maker), "cases": cases}
        path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Comparison:
    """A case, as it was and as it is."""

    name: str
    before: Profile
    now: Profile
    tolerance: float

    @property
    def change(self) -> float:
        return self.now.instructions / self.before.instructions - 1

    @property
    def grew(self) -> bool:
        return self.now.instructions > self.before.instructions * (1 + self.tolerance)

    @property
    def shrank(self) -> bool:
        return self.now.instructions < self.before.instructions * (1 - self.tolerance)

    def told(self) -> str:
        text = f"{self.name:32} {self.now.instructions:14,.0f}  {self.change:+7.2%}"
        return text + ("  TOO MANY" if self.grew else "  fewer" if self.shrank else "")

    def growth(self) -> list[tuple[str, float, float]]:
        """The functions that account for most of what there is more: name, before, now. One of which nothing is stored
        was too small to be kept."""
        both = [(name, self.before.functions.get(name, 0), now) for name, now in self.now.functions.items()]
        more = [one for one in both if one[2] - one[1] > self.before.instructions * 0.001]
        return sorted(more, key=lambda one: one[1] - one[2])[:FUNCTIONS_SHOWN]

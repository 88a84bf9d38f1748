"""What callgrind counted: instructions in all, and by function."""

import re
from dataclasses import dataclass

# A line of callgrind_annotate: `1,234 (56.7%)  file:function [object]`. One function has a line for each file that parts
# of it were inlined from.
LINE = re.compile(r"^\s*([\d,]+) \(\s*[\d.]+%\)\s+(.+)$")
OBJECT = re.compile(r" \[[^\]]*\]$")
# What compilers and callgrind add to a name: a hash, the depth of a recursion, a clone's number.
ADDED = re.compile(r"(::h[0-9a-f]{16}|'\d+|\.llvm\.\d+|\.\d+)+$")


@dataclass(frozen=True)
class Profile:
    instructions: float
    functions: dict[str, float]

    @classmethod
    def of(cls, annotated: str) -> "Profile":
        """Reads what callgrind_annotate printed."""
        total = 0
        functions: dict[str, float] = {}
        for line in annotated.splitlines():
            if not (match := LINE.match(line)):
                continue
            count, what = int(match[1].replace(",", "")), match[2]
            if what == "PROGRAM TOTALS":
                total = count
            else:
                name = function(what)
                functions[name] = functions.get(name, 0) + count
        if not total:
            raise ValueError(f"callgrind_annotate told no total:\n{annotated[:2000]}")
        return cls(total, functions)

    def each(self, count: int) -> "Profile":
        """Of one of `count` repetitions."""
        return Profile(self.instructions / count, {name: spent / count for name, spent in self.functions.items()})

    def beyond(self, base: "Profile") -> "Profile":
        """What this has more than `base`."""
        names = self.functions.keys() | base.functions.keys()
        more = {name: self.functions.get(name, 0) - base.functions.get(name, 0) for name in names}
        return Profile(self.instructions - base.instructions, more)

    def largest(self, count: int) -> dict[str, float]:
        ordered = sorted(self.functions.items(), key=lambda item: (-item[1], item[0]))
        return dict(ordered[:count])


def function(what: str) -> str:
    """The name in `file:function [object]`."""
    _, _, name = OBJECT.sub("", what).partition(":")
    return ADDED.sub("", name)

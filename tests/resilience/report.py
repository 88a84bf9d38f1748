"""What a scenario says: a line for each check, and figures that also go to the JSON of `--json`."""

from stand import Checks


class Report(Checks):
    def __init__(self, name, title):
        super().__init__(f"{name}: {title}")
        self.name = name
        self.figures = {}

    def figure(self, name, value, text=None):
        """Keeps a figure; prints it unless `text` is empty."""
        self.figures[name] = value
        if text != "":
            self.note(text or f"{name}: {told(value)}")

    def none(self, what, found, limit=10):
        """A check that nothing was found; the first of what was are listed."""
        found = list(found)
        self.that(f"{what}: {len(found)}, expected none", not found)
        for one in found[:limit]:
            self.note(f"  {one}")
        if len(found) > limit:
            self.note(f"  … and {len(found) - limit} more")


def told(value):
    if isinstance(value, dict):
        return ", ".join(f"{name} {told(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "-" if value is None else str(value)

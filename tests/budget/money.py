"""Amounts as whole nano-dollars. JSON numbers are read from their text and written as text: no float ever holds money."""

import json
import re
from decimal import Decimal

NANO = 1_000_000_000
_RAW = re.compile(r'"\\u0000usd:(-?[0-9.]+)"')


def nano(amount):
    """Nano-dollars of a number that `load` read."""
    exact = Decimal(amount) * NANO
    whole = int(exact)
    if whole != exact:
        raise ValueError(f"{amount} dollars are finer than a nano-dollar")
    return whole


def usd(amount):
    """Nano-dollars as a decimal number of dollars."""
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    text = f"{sign}{size // NANO}.{size % NANO:09}"
    return text.rstrip("0").rstrip(".")


def dollars(amount):
    """Nano-dollars as a value for `dump`."""
    return f"\0usd:{usd(amount)}"


def load(text):
    return json.loads(text, parse_float=Decimal)


def dump(value):
    """JSON in which what `dollars` made stands as a number."""
    return _RAW.sub(r"\1", json.dumps(value))

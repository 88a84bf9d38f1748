#!/usr/bin/env python3
"""Turns a published table of Bedrock list prices into conf/prices.yaml.

    scripts/make_prices.py TABLE.json conf/prices.yaml [--collected YYYY-MM-DD]
    scripts/make_prices.py --check TABLE.json conf/prices.yaml     # needs PyYAML; proves that nothing was lost

TABLE.json is `{"entries": [{"key": "us.anthropic.claude-…", "input_cost_per_token": 3.3e-06, …}, …]}`: one object
a price, dollars per single unit, fields named `<what>_cost_per_<unit>[_above_<n>k_tokens][_<tier>]`. A key may carry a
route and a region (`bedrock/us-gov-west-1/…`), a commitment (`1-month-commitment/…`) or an image variant
(`1024-x-1024/50-steps/…`); here they become fields. Amounts are decimals from end to end, never floats, and a field
that this program does not know stops it: a price that is silently dropped would be given away.
"""

import argparse
import json
import re
import sys
from decimal import Decimal

PER_MILLION = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write_5m": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_1h",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
}
PER_UNIT = {
    "image_out": "output_cost_per_image",
    "image_in": "input_cost_per_image",
    "video_input_second": "input_cost_per_video_per_second",
    "audio_input_second": "input_cost_per_audio_per_second",
    "video_output_second": "output_cost_per_video_per_second",
    "query": "input_cost_per_query",
    "provisioned_second": "cost_per_second",
}
WEB_SEARCH = {f"web_search_{size}": f"search_context_size_{size}" for size in ("low", "medium", "high")}
GUARDRAIL = {
    "topic": "topicPolicyUnits",
    "content": "contentPolicyUnits",
    "content_image": "contentPolicyImageUnits",
    "word": "wordPolicyUnits",
    "sensitive_information": "sensitiveInformationPolicyUnits",
    "sensitive_information_free": "sensitiveInformationPolicyFreeUnits",
    "contextual_grounding": "contextualGroundingPolicyUnits",
    "automated_reasoning": "automatedReasoningPolicyUnits",
}
TIERS = {"flex": "_flex", "priority": "_priority", "batch": "_batches", "ultrafast": "_ultrafast"}
FACTS = {
    "mode": "mode",
    "max_input_tokens": "max_input_tokens",
    "max_output_tokens": "max_output_tokens",
    "prompt_cache_min_tokens": "prompt_cache_min_tokens",
    "deprecated": "deprecation_date",
    "source": "source",
}
# Said by the key or by another field: `input_cost_per_second` repeats `cost_per_second` (checked below).
NOT_AMOUNTS = {"key", "model_id", "region", "surface", "input_cost_per_second"} | set(FACTS.values())
MILLION = Decimal(1_000_000)
REGION = re.compile(r"(?:us-gov|[a-z]{2})-[a-z]+-\d")
HEAD = """\
# The price book: what one call of a Bedrock model costs.
#
# Source: AWS list prices as published (each entry names its page where one is known), collected {collected}.
# Made by scripts/make_prices.py; {entries} published prices in {rows} entries{merged}.
# Amounts are decimal strings in US dollars, exact: read them as decimals, never as floating-point numbers.
#
#   model                    AWS's id, with its geography prefix (us. eu. apac. jp. au. in. global. us-gov.) if any.
#                            Geography prefixes are priced apart: us. and eu. are mostly 1.1 times the bare id.
#                            `guardrail` stands for Bedrock Guardrails.
#   region                   The price holds for calls made in this region only; without it, wherever no entry does.
#   surface                  `mantle`: holds for bedrock-mantle endpoints only. Without it: bedrock-runtime.
#   commitment               Provisioned throughput bought for this long. Never the price of an on-demand call.
#   image                    The price holds for images up to this size and these steps (`max`: without limit),
#                            in this quality (standard, premium), where AWS tells them apart.
#   mode                     What the model does: chat, embedding, rerank, image_generation, …
#   max_input_tokens         The context window.
#   max_output_tokens        The longest answer.
#   prompt_cache_min_tokens  Shorter prompts are not cached.
#   deprecated               The day AWS retires the model.
#   source                   Where the price stands.
#   per_million              Dollars per 1,000,000 tokens: input (neither read from nor written to the cache), output,
#                            cache_read, cache_write_5m and cache_write_1h (by lifetime), audio_input, audio_output,
#                            image_input (tokens that stand for an image).
#                            Not listed, cache_read and cache_write_5m cost what input does; cache_write_1h costs twice
#                            the input if cache_write_5m is listed, and else what input does.
#   tiers                    Rates that replace per_million under a service tier: flex, priority, batch, ultrafast, or
#                            under performanceConfig: optimized. A rate that is not named is that of per_million.
#   above                    Long context: with more than `tokens` tokens of input in all (cached or not), these rates
#                            replace per_million and tiers for the whole call.
#   per_unit                 Dollars per single unit: image_out, image_in, video_input_second, audio_input_second,
#                            video_output_second, query, provisioned_second (one model unit), web_search_* (a search).
#   guardrail_per_unit       Dollars per text unit (1,000 characters) or image, by guardrail policy.
version: 1
collected: {collected}
currency: USD
prices:
"""


def identity(entry):
    """What tells a price from the others: its key, taken apart."""
    parts = entry["key"].split("/")
    model = parts.pop()
    if not re.fullmatch(r"[\w.@:-]*\w", model):
        sys.exit(f"{entry['key']}: {model!r} is not an id that YAML takes without quotes")
    row = {"model": "guardrail" if model == "guardrails" else model}
    for part in parts:
        if part in ("bedrock", "bedrock_mantle", "invoke", "*"):
            continue
        if size := re.fullmatch(r"(\d+|max)-x-(\d+|max)", part):
            row.setdefault("image", {})["size"] = "max" if "max" in size.groups() else "x".join(size.groups())
        elif steps := re.fullmatch(r"(\d+|max)-steps", part):
            row.setdefault("image", {})["steps"] = steps[1]
        elif part in ("standard", "premium"):
            row.setdefault("image", {})["quality"] = part
        elif commitment := re.fullmatch(r"(\d+-month)-commitment", part):
            row["commitment"] = commitment[1]
        elif REGION.fullmatch(part):
            row["region"] = part
        else:
            sys.exit(f"{entry['key']}: what is {part!r}?")
    if parts[:1] == ["bedrock_mantle"]:
        row["surface"] = "mantle"
    for field in ("region", "surface"):
        if entry.get(field) not in (None, row.get(field)):
            sys.exit(f"{entry['key']}: {field} is {entry[field]!r} but the key says {row.get(field)!r}")
    return row


def token_field(name):
    """`input_cost_per_token_above_200k_tokens_flex` -> ("input", 200000, "batch" or None); None if it is another."""
    tier = next((tier for tier, suffix in TIERS.items() if name.endswith(suffix)), None)
    if tier:
        name = name.removesuffix(TIERS[tier])
    above = re.search(r"_above_(\d+)k_tokens$", name)
    if above:
        name = name[: above.start()]
    rate = next((rate for rate, published in PER_MILLION.items() if published == name), None)
    return rate and (rate, int(above[1]) * 1000 if above else None, tier)


def exact(amount):
    """A decimal in plain digits: 3.30E-6 × 10⁶ -> 3.3."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amounts(entry):
    """The amounts of an entry as {path in the YAML row: decimal string}."""
    found = {}
    for name, value in entry.items():
        if name in NOT_AMOUNTS:
            continue
        if place := token_field(name):
            rate, above, tier = place
            path = (("above", above) if above else ()) + (("tiers", tier) if tier else ("per_million",)) + (rate,)
            found[path] = exact(Decimal(value) * MILLION)
        elif name in PER_UNIT.values():
            unit = next(unit for unit, published in PER_UNIT.items() if published == name)
            found["per_unit", unit] = exact(Decimal(value))
        elif name in ("search_context_cost_per_query", "guardrail_cost_per_unit"):
            group, names = ("per_unit", WEB_SEARCH) if name.startswith("search") else ("guardrail_per_unit", GUARDRAIL)
            for ours, published in names.items():
                found[group, ours] = exact(Decimal(value[published]))
            if unknown := set(value) - set(names.values()):
                sys.exit(f"{entry['key']}: unknown in {name}: {sorted(unknown)}")
        else:
            sys.exit(f"{entry['key']}: unknown field {name!r}")
    if entry.get("input_cost_per_second", entry.get("cost_per_second")) != entry.get("cost_per_second"):
        sys.exit(f"{entry['key']}: input_cost_per_second differs from cost_per_second")
    return found


def row_key(row):
    image = row.get("image", {})
    return (row["model"], row.get("surface", ""), row.get("region", ""), row.get("commitment", ""),
            image.get("size", ""), image.get("steps", ""), image.get("quality", ""))


def merge(rows, entry):
    """Adds an entry. Two keys may name one price (a route in front of the id): amounts have to agree, gaps are filled,
    and of two context windows the larger stands, since it bounds what a call may cost."""
    row = identity(entry)
    row["facts"] = {ours: entry[published] for ours, published in FACTS.items() if published in entry}
    row["amounts"] = amounts(entry)
    known = rows.setdefault(row_key(row), row)
    if known is row:
        row["notes"] = []
        return
    for path, amount in row["amounts"].items():
        if known["amounts"].setdefault(path, amount) != amount:
            sys.exit(f"{entry['key']}: {path} is {amount} here and {known['amounts'][path]} in its twin")
    known["notes"].append(f"Also published as {entry['key']}.")
    for name, value in row["facts"].items():
        if (first := known["facts"].setdefault(name, value)) != value:
            known["notes"].append(f"{name}: {first} here, {value} there.")
            known["facts"][name] = max(first, value) if name.startswith("max_") else first


def flow(mapping, quote=True):
    return "{ " + ", ".join(f'{name}: "{value}"' if quote else f"{name}: {value}" for name, value in mapping) + " }"


def group(row, prefix, order):
    """The amounts directly under `prefix`, in the order of `order`."""
    return [(name, row["amounts"][*prefix, name]) for name in order if (*prefix, name) in row["amounts"]]


def write_row(row, out):
    for note in row["notes"]:
        out(f"  # {note}")
    out(f"  - model: {row['model']}")
    for name in ("region", "surface", "commitment"):
        if name in row:
            out(f"    {name}: {row[name]}")
    if "image" in row:
        out(f"    image: {flow(row['image'].items(), quote=False)}")
    for name in FACTS:
        if name in row["facts"]:
            out(f"    {name}: {row['facts'][name]}")
    write_rates(row, (), "    ", out)
    if thresholds := sorted({path[1] for path in row["amounts"] if path[0] == "above"}):
        out("    above:")
        for threshold in thresholds:
            out(f"      - tokens: {threshold}")
            write_rates(row, ("above", threshold), "        ", out)
    for name, order in (("per_unit", [*PER_UNIT, *WEB_SEARCH]), ("guardrail_per_unit", GUARDRAIL)):
        if found := group(row, (name,), order):
            out(f"    {name}: {flow(found)}")


def write_rates(row, prefix, indent, out):
    if found := group(row, (*prefix, "per_million"), PER_MILLION):
        out(f"{indent}per_million: {flow(found)}")
    if tiers := [(tier, found) for tier in TIERS if (found := group(row, (*prefix, "tiers", tier), PER_MILLION))]:
        out(f"{indent}tiers:")
        for tier, found in tiers:
            out(f"{indent}  {tier}: {flow(found)}")


def make(entries, path, collected):
    rows = {}
    # Without a route in front first, so that a twin is the one with the longer key.
    for entry in sorted(entries, key=lambda entry: len(entry["key"])):
        merge(rows, entry)
    merged = len(entries) - len(rows)
    lines = []
    for key in sorted(rows):
        write_row(rows[key], lines.append)
    head = HEAD.format(collected=collected, entries=len(entries), rows=len(rows),
                       merged=f" ({merged} are published under two keys)" if merged else "")
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + "\n".join(lines) + "\n")
    print(f"{len(entries)} published prices in {len(rows)} entries: {path}")


def check(entries, path):
    """Reads the YAML back and rebuilds every published field from it, going the other way."""
    import yaml

    with open(path, encoding="utf-8") as file:
        book = yaml.load(file, Loader=yaml.BaseLoader)  # Every scalar as its text.
    twins = {}
    for entry in entries:
        twins.setdefault(row_key(identity(entry)), []).append(dict(flatten(entry)))
    problems, fields = [], sum(len(said) for group in twins.values() for said in group)
    for row in book["prices"]:
        key, rebuilt = row_key(row), rebuild(row)
        group = twins.pop(key, [])
        for name in rebuilt.keys() | {name for said in group for name in said}:
            said = {entry[name] for entry in group if name in entry}
            ours = rebuilt.get(name)
            agreed = max(said) == ours if said and name.startswith("max_") else ours in said
            if not agreed or (len(said) > 1 and name not in FACTS.values()):
                problems.append(f"{key}: {name} is {ours}, published as {said or 'nothing'}")
    problems += [f"{key} is missing or stands twice" for key in twins]
    print("\n".join(problems) or f"{len(entries)} prices, {fields} fields: all there, none added")
    sys.exit(bool(problems))


def flatten(entry):
    """(name, value) of everything an entry says beyond its key."""
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from value.items()
        elif name not in ("key", "model_id", "region", "surface"):
            yield name, Decimal(value) if isinstance(value, int) else value


def rebuild(row):
    """The published names and amounts of a YAML row."""
    found = {}
    for bracket in [row, *row.get("above", [])]:
        above = f"_above_{int(bracket['tokens']) // 1000}k_tokens" if "tokens" in bracket else ""
        for suffix, rates in [("", bracket.get("per_million", {})),
                              *((TIERS[tier], rates) for tier, rates in bracket.get("tiers", {}).items())]:
            for rate, amount in rates.items():
                found[PER_MILLION[rate] + above + suffix] = Decimal(amount) / MILLION
    for unit, amount in row.get("per_unit", {}).items():
        found[PER_UNIT.get(unit) or WEB_SEARCH[unit]] = Decimal(amount)
        if unit == "provisioned_second":
            found["input_cost_per_second"] = Decimal(amount)
    for policy, amount in row.get("guardrail_per_unit", {}).items():
        found[GUARDRAIL[policy]] = Decimal(amount)
    for ours, published in FACTS.items():
        if ours in row:
            found[published] = Decimal(row[ours]) if row[ours].isdigit() else row[ours]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="the published table, JSON")
    parser.add_argument("book", help="the price book, YAML")
    parser.add_argument("--collected", default="2026-11-22", help="the day the prices were read")
    parser.add_argument("--check", action="store_true", help="compare BOOK with TABLE instead of writing it")
    arguments = parser.parse_args()
    with open(arguments.table, encoding="utf-8") as file:
        entries = json.load(file, parse_float=Decimal)["entries"]
    if arguments.check:
        check(entries, arguments.book)
    else:
        make(entries, arguments.book, arguments.collected)


if __name__ == "__main__":
    main()

"""Whether everybody counted the same: the spend log, the accounts, the request logs of the proxies, the answers that
clients got, and the bill. Comparison is by request, so that a difference names its call."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import money


@dataclass
class Entry:
    """A line of the spend log."""

    request_id: str
    key_id: str
    cost: int
    kind: str
    certainty: str

    @classmethod
    def of(cls, row):
        metadata = row["metadata"]
        return cls(
            row["request_id"] or "", row["api_key"] or "", money.nano(row["spend"]), metadata["kind"],
            metadata["certainty"] or "",
        )


@dataclass
class Account:
    key_id: str
    spent: int
    # Of the same time as `spent`: for ever.
    limit: int | None = None


@dataclass
class Books:
    """What everybody says, at rest."""

    entries: list
    accounts: list
    global_spend: int
    # Dictionaries as the proxies wrote them.
    records: list
    # Rows of the simulator's bill, and its own total.
    bill: list
    billed_total: int
    # Call ids of answers that a client got whole with status 200.
    answered: set = field(default_factory=set)
    overrun: int = 0
    open_leases: int = 0


@dataclass
class Verdict:
    figures: list
    # What must never be: (what, details).
    faults: list

    def print(self, title):
        print(f"\n{title}")
        width = max(len(name) for name, _ in self.figures)
        for name, value in self.figures:
            print(f"  {name:<{width}}  {value}")
        for what, details in self.faults:
            print(f"  FAULT: {what}")
            for detail in details[:20]:
                print(f"         {detail}")
            if len(details) > 20:
                print(f"         … and {len(details) - 20} more")
        print(f"  {'EXACT' if not self.faults else 'NOT EXACT'}", flush=True)


def reconcile(books):
    faults = []

    def fault(what, details):
        if details:
            faults.append((what, details))

    by_request, by_key = defaultdict(int), defaultdict(int)
    # Attempts that were sent and never answered, before one that was: nobody knows their ids at AWS. They are charged
    # without knowing their usage; what else a request was charged, and its last entry, is the attempt that was answered.
    unanswered, last = defaultdict(int), {}
    for entry in books.entries:
        by_request[entry.request_id] += entry.cost
        before = last.get(entry.request_id)
        if before and before.certainty == "unknown":
            unanswered[entry.request_id] += before.cost
        last[entry.request_id] = entry
        by_key[entry.key_id] += entry.cost
    spent = sum(entry.cost for entry in books.entries)
    nano = _nano
    if spent != books.global_spend:
        fault("the log's sum is not the daily sums'", [f"log {nano(spent)}, days {nano(books.global_spend)}"])
    fault("an account is not the sum of its entries", [
        f"{account.key_id}: account {nano(account.spent)}, entries {nano(by_key[account.key_id])}"
        for account in books.accounts if account.spent != by_key[account.key_id]
    ])
    fault("a budget is overspent", [
        f"{account.key_id}: {nano(account.spent)} of {nano(account.limit)}"
        for account in books.accounts if account.limit is not None and account.spent > account.limit
    ])
    fault("spent beyond what was reserved", [nano(books.overrun)] if books.overrun else [])
    fault("still reserved at rest", [f"{books.open_leases} leases"] if books.open_leases else [])

    recorded = {record["call_id"]: record for record in books.records}
    with_cost = {id: record["cost_nano_usd"] for id, record in recorded.items() if record.get("cost_nano_usd") is not None}
    fault("a request record is not what was booked", [
        f"{id}: record {nano(cost)}, entries {nano(by_request.get(id, 0))}"
        for id, cost in with_cost.items() if by_request.get(id, 0) != cost
    ])
    fault("a client was answered and nothing was booked", sorted(id for id in books.answered if id not in by_request))

    bill = {row["request_id"]: row["cost_nano_usd"] for row in books.bill}
    by_aws_id = {record["aws_request_id"]: record for record in books.records if record.get("aws_request_id")}
    differences, below = [], []
    unknown_to_proxies = 0
    for aws_id, cost in bill.items():
        record = by_aws_id.get(aws_id)
        if record is None:
            unknown_to_proxies += cost or 0
            continue
        booked = by_request.get(record["call_id"], 0) - unanswered[record["call_id"]]
        line = f"{record['call_id']} ({record.get('usage_certainty')}): billed {nano(cost or 0)}, booked {nano(booked)}"
        if record.get("usage_certainty") == "exact" and booked != cost:
            differences.append(line)
        elif booked < (cost or 0):
            below.append(line)
    fault("a call with stated usage is not booked as billed", differences)
    fault("a call is booked below its bill", below)
    # Calls whose proxy was killed, or whose connection broke before a header: their ids at AWS are not known, only their
    # sum can be compared.
    identified = {record["call_id"] for record in by_aws_id.values()}
    orphans = sum(unanswered[id] if id in identified else cost for id, cost in by_request.items())
    if unknown_to_proxies > orphans:
        fault("calls without an id of AWS are booked below their bill", [
            f"billed {nano(unknown_to_proxies)}, booked {nano(orphans)}"])
    if spent < books.billed_total:
        fault("less is booked than billed", [f"booked {nano(spent)}, billed {nano(books.billed_total)}"])
    if len(books.bill) and sum(cost or 0 for cost in bill.values()) != books.billed_total:
        fault("the simulator lost rows of its bill", [f"{len(bill)} rows"])

    kinds = Counter(entry.kind for entry in books.entries)
    certainties = Counter(entry.certainty or "-" for entry in books.entries if entry.kind == "request")
    figures = [
        ("entries", f"{len(books.entries)} ({_counts(kinds)}; requests: {_counts(certainties)})"),
        ("booked", nano(spent)),
        ("  in daily sums", nano(books.global_spend)),
        ("  on accounts", nano(sum(account.spent for account in books.accounts))),
        ("  in request records", f"{nano(sum(with_cost.values()))} in {len(with_cost)} of {len(recorded)}"),
        ("  without an id of AWS", nano(orphans)),
        ("billed", f"{nano(books.billed_total)} in {len(bill)} calls"),
        ("  with ids no record has", nano(unknown_to_proxies)),
        ("booked beyond the bill", nano(spent - books.billed_total)),
        ("answered whole", len(books.answered)),
    ]
    return Verdict(figures, faults)


def _nano(amount):
    return f"{amount:,} n$"


def _counts(counter):
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"

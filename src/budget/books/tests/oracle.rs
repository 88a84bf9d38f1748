//! The same rules, written as naively as possible: nothing is ever added up ahead of time. What an account has spent
//! is its history replayed, what is reserved is a sum over all leases, what counts in a minute is a search through all
//! admissions.

use std::collections::BTreeMap;

use crate::budget::books::window::{BUCKET_MS, BUCKETS};
use crate::budget::command::{AMOUNT_MAX, Balance, Charge, Denial, LeaseId, Op, Reserve, Reserved};
use crate::types::money::NanoUsd;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    Expired { charged: u64 },
    Closed,
}

#[derive(Debug, Clone)]
struct Lease {
    state: State,
    amount: u64,
    expires_at_ms: u64,
    accounts: Vec<String>,
    throttles: Vec<String>,
    forget_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Admission {
    lease: String,
    throttle: String,
    at_ms: u64,
    requests: u64,
    /// `None` where they are not limited.
    tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Booking {
    Add(u64),
    Take(u64),
    Set(u64),
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    leases: BTreeMap<String, Lease>,
    admissions: Vec<Admission>,
    history: BTreeMap<String, Vec<Booking>>,
    overruns: BTreeMap<String, u64>,
    forget_at_ms: BTreeMap<String, u64>,
    nodes: BTreeMap<String, u64>,
    /// Accounts on which something was booked that no reservation had room for.
    pub(super) excused: Vec<String>,
}

fn names(charges: &[Charge]) -> Vec<String> {
    let mut names: Vec<String> = charges.iter().map(|charge| charge.account.as_str().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

impl Oracle {
    pub(super) fn spent(&self, account: &str) -> u64 {
        self.history.get(account).into_iter().flatten().fold(0, |spent: u64, booking| match booking {
            Booking::Add(cost) => spent + cost,
            Booking::Take(back) => spent.saturating_sub(*back),
            Booking::Set(to) => *to,
        })
    }

    pub(super) fn reserved(&self, account: &str) -> u64 {
        let open = self.leases.values().filter(|lease| lease.state == State::Open);
        open.filter(|lease| lease.accounts.iter().any(|name| name == account)).map(|lease| lease.amount).sum()
    }

    pub(super) fn balance(&self, account: &str) -> Balance {
        Balance {
            spent: NanoUsd(self.spent(account)),
            reserved: NanoUsd(self.reserved(account)),
            overrun: NanoUsd(self.overruns.get(account).copied().unwrap_or(0)),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.leases.values().filter(|lease| lease.state == State::Open).count()
    }

    fn balances(&self, charges: &[Charge]) -> Vec<Balance> {
        charges.iter().map(|charge| self.balance(charge.account.as_str())).collect()
    }

    fn remember(&mut self, accounts: &[String], forget_at_ms: Option<u64>) {
        for account in accounts {
            self.history.entry(account.clone()).or_default();
            if let Some(at_ms) = forget_at_ms {
                let known = self.forget_at_ms.entry(account.clone()).or_default();
                *known = at_ms.max(*known);
            }
        }
    }

    fn book(&mut self, accounts: &[String], booking: Booking, forget_at_ms: Option<u64>) {
        if matches!(booking, Booking::Add(0) | Booking::Take(0)) {
            return;
        }
        self.remember(accounts, forget_at_ms);
        for account in accounts {
            self.history.entry(account.clone()).or_default().push(booking);
        }
    }

    pub(super) fn reap(&mut self, now_ms: u64, limit: usize) -> usize {
        let mut due: Vec<(u64, String)> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.state == State::Open && lease.expires_at_ms <= now_ms)
            .map(|(id, lease)| (lease.expires_at_ms, id.clone()))
            .collect();
        due.sort();
        due.truncate(limit);
        for (_, id) in &due {
            let lease = self.leases.get_mut(id).unwrap();
            lease.state = State::Expired { charged: lease.amount };
            let lease = lease.clone();
            self.book(&lease.accounts, Booking::Add(lease.amount), lease.forget_at_ms);
        }
        due.len()
    }

    /// The denial, if any, were the request made at that moment.
    fn throttled(&self, now_ms: u64, request: &Reserve) -> Option<Denial> {
        let sum = |throttle: &str, at_ms: u64, of: &dyn Fn(&Admission) -> u64| -> u64 {
            let on = self.admissions.iter().filter(|admission| admission.throttle == throttle);
            on.filter(|admission| admission.at_ms / BUCKET_MS + BUCKETS > at_ms / BUCKET_MS).map(of).sum()
        };
        let wait = |fits: &dyn Fn(u64) -> bool| {
            let boundaries = (1..=BUCKETS).map(|bucket| (now_ms / BUCKET_MS + bucket) * BUCKET_MS);
            let first = boundaries.into_iter().find(|at_ms| fits(*at_ms));
            first.map_or(60_000, |at_ms| at_ms - now_ms)
        };
        request.throttles.iter().enumerate().find_map(|(index, throttle)| {
            let name = throttle.account.as_str();
            let open = self.leases.values().filter(|lease| lease.state == State::Open);
            let parallel = open.filter(|lease| lease.throttles.iter().any(|other| other == name)).count();
            if throttle.parallel.is_some_and(|limit| parallel as u64 >= limit) {
                return Some(Denial::Parallel { index });
            }
            if let Some(rpm) = throttle.rpm {
                let fits = |at_ms| sum(name, at_ms, &|admission| admission.requests) < rpm;
                if !fits(now_ms) {
                    return Some(Denial::Requests { index, retry_after_ms: wait(&fits) });
                }
            }
            let tpm = throttle.tpm?;
            let counted = request.tokens.min(tpm);
            let tokens = |admission: &Admission| admission.tokens.unwrap_or(0);
            let fits = |at_ms| sum(name, at_ms, &tokens) + counted <= tpm;
            (!fits(now_ms)).then(|| Denial::Tokens { index, retry_after_ms: wait(&fits) })
        })
    }

    fn over_budget(&self, charges: &[Charge], amount: u64) -> Option<Denial> {
        charges.iter().enumerate().find_map(|(index, charge)| {
            let Some(NanoUsd(limit)) = charge.limit else {
                return (amount > AMOUNT_MAX.0).then_some(Denial::Budget { index, remaining: AMOUNT_MAX });
            };
            let name = charge.account.as_str();
            let used = self.spent(name) + self.reserved(name);
            let remaining = NanoUsd(limit.saturating_sub(used));
            (used + amount > limit).then_some(Denial::Budget { index, remaining })
        })
    }

    pub(super) fn reserve(&mut self, now_ms: u64, request: &Reserve) -> Reserved {
        self.reap(now_ms, 16);
        let id = request.lease.as_str();
        match self.leases.get(id).map(|lease| &lease.state) {
            Some(State::Open) => return Reserved::Granted { balances: self.balances(&request.charges) },
            Some(_) => return Reserved::Closed,
            None => {}
        }
        let denial = self.throttled(now_ms, request).or_else(|| self.over_budget(&request.charges, request.amount.0));
        if let Some(denial) = denial {
            return Reserved::Denied(denial);
        }
        let lease = Lease {
            state: State::Open,
            amount: request.amount.0,
            expires_at_ms: now_ms + request.ttl_ms,
            accounts: names(&request.charges),
            throttles: request.throttles.iter().map(|throttle| throttle.account.as_str().to_owned()).collect(),
            forget_at_ms: request.charges.first().and_then(|charge| charge.forget_at_ms),
        };
        self.remember(&lease.accounts, lease.forget_at_ms);
        self.leases.insert(id.to_owned(), lease);
        for throttle in &request.throttles {
            self.admissions.push(Admission {
                lease: id.to_owned(),
                throttle: throttle.account.as_str().to_owned(),
                at_ms: now_ms,
                requests: u64::from(throttle.rpm.is_some()),
                tokens: throttle.tpm.map(|tpm| request.tokens.min(tpm)),
            });
        }
        Reserved::Granted { balances: self.balances(&request.charges) }
    }

    pub(super) fn extend(&mut self, lease: &LeaseId, to: u64, charges: &[Charge]) -> Reserved {
        let Some(amount) = self.leases.get(lease.as_str()).filter(|lease| lease.state == State::Open).map(|l| l.amount)
        else {
            return Reserved::Closed;
        };
        if to > amount {
            if let Some(denial) = self.over_budget(charges, to - amount) {
                return Reserved::Denied(denial);
            }
            self.leases.get_mut(lease.as_str()).unwrap().amount = to;
        }
        Reserved::Granted { balances: self.balances(charges) }
    }

    pub(super) fn touch(&mut self, now_ms: u64, leases: &[LeaseId], ttl_ms: u64) -> Vec<LeaseId> {
        let mut gone = Vec::new();
        for id in leases {
            match self.leases.get_mut(id.as_str()).filter(|lease| lease.state == State::Open) {
                Some(lease) => lease.expires_at_ms = lease.expires_at_ms.max(now_ms + ttl_ms),
                None => gone.push(id.clone()),
            }
        }
        gone
    }

    pub(super) fn apply(&mut self, now_ms: u64, node: &str, first: u64, ops: &[Op]) -> u64 {
        self.reap(now_ms, 16);
        for (op, number) in ops.iter().zip(first..) {
            if number == self.nodes.get(node).copied().unwrap_or(0) + 1 {
                self.carry_out(now_ms, op);
                self.nodes.insert(node.to_owned(), number);
            }
        }
        self.nodes.get(node).copied().unwrap_or(0)
    }

    fn carry_out(&mut self, now_ms: u64, op: &Op) {
        match op {
            Op::Reset { account, spent, .. } => self.book(&[account.as_str().to_owned()], Booking::Set(spent.0), None),
            Op::Close { lease } => self.end(now_ms, lease.as_str(), 0),
            Op::Spend { lease, close, cost: NanoUsd(cost), tokens, charges, .. } => {
                let known = lease.as_ref().and_then(|lease| self.leases.get_mut(lease.as_str()));
                match known.map(|lease| (lease.state.clone(), lease)) {
                    Some((State::Open, lease)) => {
                        let beyond = cost.saturating_sub(lease.amount);
                        lease.amount -= cost - beyond;
                        let lease = lease.clone();
                        self.book(&lease.accounts, Booking::Add(*cost), lease.forget_at_ms);
                        for account in lease.accounts.iter().filter(|_| beyond > 0) {
                            *self.overruns.entry(account.clone()).or_default() += beyond;
                            self.excused.push(account.clone());
                        }
                    }
                    Some((State::Expired { charged }, lease)) => {
                        let beyond = cost.saturating_sub(charged);
                        lease.state = State::Expired { charged: charged - (cost - beyond) };
                        let lease = lease.clone();
                        self.book(&lease.accounts, Booking::Add(beyond), lease.forget_at_ms);
                        self.excused.extend(lease.accounts);
                    }
                    _ => {
                        let forget_at_ms = charges.first().and_then(|charge| charge.forget_at_ms);
                        self.book(&names(charges), Booking::Add(*cost), forget_at_ms);
                        self.excused.extend(names(charges));
                    }
                }
                if let Some(lease) = lease.as_ref().filter(|_| *close) {
                    self.end(now_ms, lease.as_str(), *tokens);
                }
            }
        }
    }

    /// Whatever the lease was, it is closed afterwards.
    fn end(&mut self, now_ms: u64, id: &str, tokens: u64) {
        let closed = Lease {
            state: State::Closed,
            amount: 0,
            expires_at_ms: 0,
            accounts: Vec::new(),
            throttles: Vec::new(),
            forget_at_ms: None,
        };
        let Some(lease) = self.leases.insert(id.to_owned(), closed) else { return };
        match lease.state {
            State::Open => {
                for admission in self.admissions.iter_mut().filter(|admission| admission.lease == id) {
                    let counts = admission.at_ms / BUCKET_MS + BUCKETS > now_ms / BUCKET_MS;
                    if let Some(counted) = admission.tokens.as_mut().filter(|_| counts) {
                        *counted = tokens;
                    }
                }
            }
            State::Expired { charged } => self.book(&lease.accounts, Booking::Take(charged), lease.forget_at_ms),
            State::Closed => {}
        }
    }

    pub(super) fn forget(&mut self, now_ms: u64) {
        let mut over: Vec<String> = self.forget_at_ms.keys().cloned().collect();
        over.retain(|account| self.forget_at_ms[account] <= now_ms && self.reserved(account) == 0);
        for account in over {
            self.history.remove(&account);
            self.overruns.remove(&account);
            self.forget_at_ms.remove(&account);
        }
    }

    /// The process ended: open leases and tombstones are gone, and nothing is under way.
    pub(super) fn restart(&mut self) {
        self.leases.retain(|_, lease| matches!(lease.state, State::Expired { .. }));
        for admission in &mut self.admissions {
            // An id may come again, and the admissions before are not its own any more.
            admission.lease.clear();
        }
    }
}

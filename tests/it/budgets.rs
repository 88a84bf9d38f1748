//! Budgets and limits, end to end: what a key may spend and how often it may call, whoever keeps the books, through
//! bursts, broken answers, crashes and outages. The simulator's bill says what was really spent.

mod bursts;
mod outages;
mod periods;
mod scopes;
mod shown;
mod streams;
mod unknown;

//! One contract, two stores: the embedded one and Redis (as functions and as scripts) have to give the same answers as
//! `budget::books`, command by command. Further what only Redis can suffer: emptied caches, restarts, failovers, servers
//! that hang, wrong passwords, TLS. Needs `redis-server` and `openssl` in the PATH and fails without them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "how much was tested belongs to the result")]

mod contract;
mod failures;
mod lockstep;
mod make;
mod reach;
mod redis_server;
mod subject;

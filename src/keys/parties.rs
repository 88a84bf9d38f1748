//! Whose limits a request is under: of its key, the key's team and user, the customer it is for, its tags, and of
//! everybody. All of them hold at once; `budget::limit` makes accounts and throttles of them.
//!
//! A customer or a tag without a record has no limits and no account: names that clients make up cost no memory here,
//! and are counted by the spend log.

use super::authenticate::{Caller, Part};
use super::register::Profile;
use crate::budget::command::Scope;
use crate::budget::limit::{GLOBAL_ID, LimitSet, Party};

/// Lists the parties, the key first. `global` are the limits of the configuration.
#[must_use]
pub fn parties<'a>(
    caller: &'a Caller,
    customer: Option<&'a Profile>,
    tags: &'a [Profile],
    global: &'a LimitSet,
) -> Vec<Party<'a>> {
    let mut parties = Vec::with_capacity(5 + tags.len());
    if let Some(holder) = caller.holder() {
        parties.extend(holder.profiles().map(|(part, profile)| party(scope(part), profile)));
    }
    parties.extend(customer.map(|profile| party(Scope::Customer, profile)));
    parties.extend(tags.iter().map(|profile| party(Scope::Tag, profile)));
    parties.push(Party { scope: Scope::Global, id: GLOBAL_ID, limits: global, budget: None });
    parties
}

/// The limits of one record.
#[must_use]
pub fn party(scope: Scope, profile: &Profile) -> Party<'_> {
    Party {
        scope,
        id: &profile.record.id,
        limits: &profile.record.limits,
        budget: profile.budget.as_deref().map(|budget| &budget.limits),
    }
}

const fn scope(part: Part) -> Scope {
    match part {
        Part::Key => Scope::Key,
        Part::Team => Scope::Team,
        Part::User => Scope::User,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::keys::authenticate::Holder;
    use crate::keys::record::Record;

    fn profile(id: &str, budget: Option<&str>) -> Profile {
        let record = |id: &str| Arc::new(Record { id: id.to_owned(), ..Record::default() });
        Profile { record: record(id), budget: budget.map(record) }
    }

    #[test]
    fn everyone_concerned_is_a_party_and_the_key_is_the_first() {
        let holder = Holder { key: profile("k", Some("b")), team: None, user: Some(profile("u", None)) };
        let caller = Caller::Key(Arc::new(holder));
        let (customer, tags) = (profile("c", None), [profile("t1", None), profile("t2", None)]);
        let global = LimitSet::default();
        let found: Vec<_> = parties(&caller, Some(&customer), &tags, &global)
            .iter()
            .map(|party| (party.scope, party.id.to_owned(), party.budget.is_some()))
            .collect();
        let expected = [
            (Scope::Key, "k", true),
            (Scope::User, "u", false),
            (Scope::Customer, "c", false),
            (Scope::Tag, "t1", false),
            (Scope::Tag, "t2", false),
            (Scope::Global, "all", false),
        ];
        assert_eq!(found, expected.map(|(scope, id, budget)| (scope, id.to_owned(), budget)));
    }

    #[test]
    fn the_master_key_is_under_the_limits_of_everybody_only() {
        let global = LimitSet::default();
        let found = parties(&Caller::Master, None, &[], &global);
        assert_eq!(found.iter().map(|party| party.scope).collect::<Vec<_>>(), [Scope::Global]);
    }
}

//! Maps that every request looks into. Names in them may come from outside, so the hash has a random key as that of the
//! standard library has; it takes a fifth of the instructions.

pub type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

pub type HashSet<K> = std::collections::HashSet<K, ahash::RandomState>;

//! The `dheera_ai` command.

fn main() {}

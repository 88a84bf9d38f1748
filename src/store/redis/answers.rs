//! Reads what the functions answer. Nothing in it is trusted: an answer of another form is an error of the store.

use redis::Value;

use crate::budget::command::{Balance, Denial, Reserved};
use crate::store::StoreError;
use crate::types::money::NanoUsd;

pub(super) fn unexpected() -> StoreError {
    StoreError::Failed("Redis gave an unexpected answer".to_owned())
}

pub(super) fn text(value: Option<&Value>) -> Result<&str, StoreError> {
    match value {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).map_err(|_| unexpected()),
        Some(Value::SimpleString(text)) => Ok(text),
        _ => Err(unexpected()),
    }
}

pub(super) fn number(value: Option<&Value>) -> Result<u64, StoreError> {
    text(value)?.parse().map_err(|_| unexpected())
}

/// An amount; one below zero, which a hand-made change of the data can leave, counts as zero.
fn amount(text: Option<&str>) -> Result<NanoUsd, StoreError> {
    let number: i64 = text.and_then(|text| text.parse().ok()).ok_or_else(unexpected)?;
    Ok(NanoUsd(u64::try_from(number).unwrap_or(0)))
}

/// A text for each account: `spent reserved overrun`.
pub(super) fn balances(values: &[Value]) -> Result<Vec<Balance>, StoreError> {
    values.iter().map(|value| balance(text(Some(value))?)).collect()
}

fn balance(text: &str) -> Result<Balance, StoreError> {
    let mut amounts = text.split(' ');
    let balance =
        Balance { spent: amount(amounts.next())?, reserved: amount(amounts.next())?, overrun: amount(amounts.next())? };
    if amounts.next().is_some() { Err(unexpected()) } else { Ok(balance) }
}

/// The answer to `reserve` and `extend`.
pub(super) fn reserved(values: &[Value]) -> Result<Reserved, StoreError> {
    let index = || usize::try_from(number(values.get(1))?).map_err(|_| unexpected());
    let retry_after_ms = || number(values.get(2));
    Ok(match text(values.first())? {
        "G" => Reserved::Granted { balances: balances(values.get(1..).unwrap_or_default())? },
        "C" => Reserved::Closed,
        "B" => Reserved::Denied(Denial::Budget { index: index()?, remaining: NanoUsd(number(values.get(2))?) }),
        "R" => Reserved::Denied(Denial::Requests { index: index()?, retry_after_ms: retry_after_ms()? }),
        "T" => Reserved::Denied(Denial::Tokens { index: index()?, retry_after_ms: retry_after_ms()? }),
        "P" => Reserved::Denied(Denial::Parallel { index: index()? }),
        _ => return Err(unexpected()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|text| Value::BulkString(text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn answers_are_read_and_nonsense_is_an_error() {
        assert_eq!(reserved(&values(&["C"])), Ok(Reserved::Closed));
        let balance = Balance { spent: NanoUsd(9_007_199_254_740_991), reserved: NanoUsd(2), overrun: NanoUsd(0) };
        assert_eq!(
            reserved(&values(&["G", "9007199254740991 2 -3"])),
            Ok(Reserved::Granted { balances: vec![balance] })
        );
        assert_eq!(reserved(&values(&["P", "1", "0"])), Ok(Reserved::Denied(Denial::Parallel { index: 1 })));
        for wrong in
            [&["G", "1 2"][..], &["G", "1 2 3 4"], &["G", "1", "2", "3"], &["B"], &["B", "x", "1"], &["?"], &[]]
        {
            assert!(reserved(&values(wrong)).is_err(), "{wrong:?}");
        }
        assert!(text(Some(&Value::Int(1))).is_err());
    }
}

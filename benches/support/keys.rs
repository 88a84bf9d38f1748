//! Who calls, and may he: a virtual key out of the register, and the rules of its record.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use dheera_ai::aws::operation::Service;
use dheera_ai::aws::route::operation;
use dheera_ai::config::Access;
use dheera_ai::keys::authenticate::{Authenticator, Caller, Identity};
use dheera_ai::keys::policy::{self, Question};
use dheera_ai::keys::register::Register;
use dheera_ai::keys::secret_key;
use dheera_ai::store::{Change, Changes, CommitError, Directory, Document, Kind, StoreError};
use dheera_ai::types::secret::Secret;
use futures::FutureExt as _;

use super::Case;

const NOW_MS: u64 = 1_790_000_000_000;
/// Nobody asks for the same key all the time: as far from the last one as this, whatever their number.
const STRIDE: usize = 7_919;

/// Proves keys, each time another one, and asks whether it may call Converse. All are in the register.
pub fn authenticate(count: usize) -> Case {
    let secrets: Vec<String> = (0..count).map(|number| format!("Bearer sk-benchmark-of-keys-{number:016}")).collect();
    let register = Arc::new(Register::new(Arc::new(Records::new(&secrets)), 4 * count));
    let access = Access {
        master_key: Some(Secret::new("sk-master-of-the-benchmarks-0123456789")),
        salt_key: None,
        allow_anonymous: false,
        require_auth_for_metrics: false,
    };
    let authenticator = Authenticator::new(&access, Some(register));
    for secret in &secrets {
        prove(&authenticator, secret);
    }
    let operation = operation(Service::BedrockRuntime, "Converse").unwrap();
    let path = "/bedrock/model/nova/converse";
    let mut turn = 0;
    Case::new(move || {
        turn = (turn + STRIDE) % secrets.len();
        let caller = prove(&authenticator, &secrets[turn]);
        let model_name = Some(policy::resolve_alias(&caller, "nova"));
        black_box(policy::allow(&caller, &Question { operation, path, model_name })).unwrap();
    })
}

fn prove(authenticator: &Authenticator, authorization: &str) -> Caller {
    let header = |name: &str| (name == "authorization").then_some(authorization.as_bytes());
    let presented = authenticator.present(header, "").unwrap();
    // What is in memory is there at once.
    match authenticator.prove(presented, NOW_MS).now_or_never() {
        Some(Ok(Identity::Known(caller))) => caller,
        other => panic!("no caller: {other:?}"),
    }
}

/// The documents of keys that only are read.
#[derive(Debug)]
struct Records(HashMap<(Kind, String), Document>);

impl Records {
    fn new(authorizations: &[String]) -> Self {
        let of_key = |(number, authorization): (usize, &String)| {
            let digest = secret_key::digest(authorization.trim_start_matches("Bearer "));
            let id = format!("key-{number}");
            let record = format!(r#"{{"id":"{id}","models":["nova*","claude"],"max_budget":1000000000000}}"#);
            let secret = format!(r#"{{"key_id":"{id}"}}"#);
            [document(Kind::Key, id, &record), document(Kind::Secret, digest, &secret)]
        };
        Self(authorizations.iter().enumerate().flat_map(of_key).collect())
    }
}

fn document(kind: Kind, id: String, json: &str) -> ((Kind, String), Document) {
    ((kind, id.clone()), Document { id, version: 1, json: json.into() })
}

#[async_trait]
impl Directory for Records {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
        Ok(self.0.get(&(kind, id.to_owned())).cloned())
    }

    async fn list(&self, _: Kind, _: Option<&str>, _: usize) -> Result<Vec<Document>, StoreError> {
        Err(read_only())
    }

    async fn commit(&self, _: &[Change]) -> Result<(), CommitError> {
        Err(read_only().into())
    }

    async fn changes(&self, _: Option<&str>) -> Result<Changes, StoreError> {
        Err(read_only())
    }
}

fn read_only() -> StoreError {
    StoreError::Failed("these records are only read".to_owned())
}

//! The check of a delivered message: an operation of this network that the ledger will read, or
//! poison. Reasons name what is wrong and never echo values.

use chopmark_domain::{
    id::ResourceKey,
    message::QueueMessage,
    ports::{Delivery, QueuePosition},
    record::{AcceptedOperation, SealedPrivate},
};
use ledger_core::{
    genesis::Network,
    hash::Hash32,
    json::JsonError,
    operation::{Operation, OperationError, OperationType, operation_hash},
};

/// Longest reason taken over from elsewhere.
const REASON_CHARS_MAX: usize = 500;

/// A message whose operation may go to the ledger.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) position: QueuePosition,
    pub(crate) message: QueueMessage,
    pub(crate) kind: OperationType,
    pub(crate) operation_hash: Hash32,
}

/// Why a message can never be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Poison {
    /// Bytes that are no message.
    Undecodable(String),
    /// A message whose operation cannot be read.
    Operation(String),
    /// A message of another network.
    Network,
    /// An operation for another chain.
    Chain,
    /// Message and operation name different operation ids.
    OperationId,
    /// Message and operation name different requests.
    Request,
    /// Message and operation name different tenants.
    Tenant,
    /// The ledger could not read the operation.
    Malformed(String),
}

impl Poison {
    /// Its name in metrics.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "undecodable",
            Self::Operation(_) => "operation",
            Self::Network => "network",
            Self::Chain => "chain",
            Self::OperationId => "operation_id",
            Self::Request => "request",
            Self::Tenant => "tenant",
            Self::Malformed(_) => "malformed",
        }
    }

    /// The reason that the dead letter carries.
    pub(crate) fn reason(&self) -> String {
        let (what, detail) = match self {
            Self::Undecodable(reason) => ("not a queue message", reason.as_str()),
            Self::Operation(reason) => ("operation cannot be read", reason.as_str()),
            Self::Network => ("message is of another network", ""),
            Self::Chain => ("operation names another chain", ""),
            Self::OperationId => ("message and operation differ in operation id", ""),
            Self::Request => ("message and operation differ in request digest", ""),
            Self::Tenant => ("message and operation differ in tenant", ""),
            Self::Malformed(reason) => ("ledger cannot read the operation", reason.as_str()),
        };
        let separator = if detail.is_empty() { "" } else { ": " };
        format!("{}: {what}{separator}{detail}", self.label()).chars().take(REASON_CHARS_MAX).collect()
    }
}

/// A message to be put aside.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) position: QueuePosition,
    pub(crate) bytes: Vec<u8>,
    pub(crate) poison: Poison,
}

/// Sorts deliveries into what may go on and what is poison. Pure, and a few microseconds each.
pub(crate) fn admit(network: Network, chain: &Hash32, deliveries: Vec<Delivery>) -> (Vec<Admitted>, Vec<Letter>) {
    let (mut admitted, mut letters) = (Vec::with_capacity(deliveries.len()), Vec::new());
    for Delivery { position, message } in deliveries {
        match message {
            Err(poison) => {
                letters.push(Letter { position, bytes: poison.bytes, poison: Poison::Undecodable(poison.reason) });
            }
            Ok(message) => match check(network, chain, &message) {
                Ok(kind) => {
                    let operation_hash = operation_hash(&message.operation);
                    admitted.push(Admitted { position, message, kind, operation_hash });
                }
                Err(poison) => letters.push(Letter { position, bytes: message.encode(), poison }),
            },
        }
    }
    (admitted, letters)
}

fn check(network: Network, chain: &Hash32, message: &QueueMessage) -> Result<OperationType, Poison> {
    let ensure = |holds: bool, poison: Poison| if holds { Ok(()) } else { Err(poison) };
    ensure(message.network == network.as_str(), Poison::Network)?;
    let operation = Operation::parse(&message.operation).map_err(|error| Poison::Operation(describe(&error)))?;
    let common = operation.common();
    ensure(common.chain == *chain, Poison::Chain)?;
    ensure(common.op == message.op, Poison::OperationId)?;
    ensure(common.request == message.request_digest, Poison::Request)?;
    // Governance belongs to no tenant.
    ensure(operation.tenant().unwrap_or_default() == message.tenant, Poison::Tenant)?;
    Ok(common.kind)
}

/// The fault without the values that a JSON error's own text would quote.
fn describe(error: &OperationError) -> String {
    match error {
        OperationError::Json(JsonError::Syntax(error)) => {
            format!("JSON {:?} error at byte {}", error.classify(), error.column())
        }
        other => other.to_string(),
    }
}

impl Admitted {
    /// The row that the database gets.
    pub(crate) fn row(&self, accepted_at: u64) -> AcceptedOperation {
        let message = &self.message;
        let private = (!message.sealed_private.is_empty())
            .then(|| SealedPrivate { sealed: message.sealed_private.clone(), external_index: message.external_index });
        AcceptedOperation {
            network: message.network.clone(),
            tenant: message.tenant.clone(),
            key: ResourceKey::of(&message.op, 0),
            op: message.op,
            kind: self.kind,
            request: message.request_digest,
            operation_hash: self.operation_hash,
            accepted_at,
            private,
        }
    }

    /// The dead letter of a message that the ledger cannot read.
    pub(crate) fn malformed(&self, reason: String) -> Letter {
        Letter { position: self.position, bytes: self.message.encode(), poison: Poison::Malformed(reason) }
    }
}

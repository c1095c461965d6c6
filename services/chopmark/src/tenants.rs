//! Bringing a tenant onto the ledger and into the database.

use anyhow::{Context as _, bail};
use chopmark_domain::{
    auth::ApiKey,
    ports::{LedgerWriter, Random, SubmitResult, TenantStore},
    quota::Limits,
    seal::KeyEncryptionKey,
    tenant::{ApiKeyRow, Scope, TENANT_SECRET_BYTES, TenantRow},
};
use ed25519_dalek::Signer as _;
use ledger_core::{
    Hash32, SigningKey,
    hash::tagged,
    operation::{
        Operation, OperationSignature, OperationType, SignedOperation, TenantSet, TenantStatus, V1, approval_message,
    },
    outcome::RejectionCode,
};
use zeroize::Zeroizing;

use crate::admin::accounts::KeyTerms;

/// Heights during which the approval of a new tenant holds, at least: about a day of full blocks.
const APPROVAL_HEIGHTS: u64 = 100_000;

/// Registers `tenant` on the ledger with the approval of these governance keys, of which a quorum is
/// needed. `height` is the ledger's. Repeating it changes nothing.
pub(crate) async fn register(
    ledger: &dyn LedgerWriter,
    height: u64,
    governance: &[SigningKey],
    tenant: &str,
) -> anyhow::Result<()> {
    let chain = ledger.chain();
    let mut approvers: Vec<[u8; 32]> = governance.iter().map(|key| key.verifying_key().to_bytes()).collect();
    approvers.sort_unstable();
    // In steps, so that a repetition says the same for long.
    let expires = (height / APPROVAL_HEIGHTS + 2) * APPROVAL_HEIGHTS;
    // An operation id has one outcome for ever. One try with too few approvals, or too late, must not stand
    // in the way of the next.
    let parts: [&[u8]; 4] = [&chain.0, tenant.as_bytes(), approvers.as_flattened(), &expires.to_be_bytes()];
    let op = tagged("chopmark/register-tenant/v3", &parts);
    let operation = Operation::TenantSet(Box::new(TenantSet {
        chain,
        expires,
        key: None,
        op,
        replaces: Hash32::ZERO,
        request: op,
        status: TenantStatus::Active,
        tenant: tenant.to_owned(),
        tier: 3,
        kind: OperationType::TenantSet,
        v: V1,
    }))
    .encode();
    let message = approval_message(&chain, &operation);
    let approve = |key: &SigningKey| OperationSignature {
        key: Hash32(key.verifying_key().to_bytes()),
        signature: key.sign(&message).to_bytes(),
    };
    let signed = SignedOperation { operation, signatures: governance.iter().map(approve).collect() };
    match ledger.submit(vec![signed]).await?.first() {
        // It replaces nothing, so it is refused where there is one.
        Some(SubmitResult::Ended { result: Ok(_) | Err(RejectionCode::StateReplaced), .. }) => Ok(()),
        Some(SubmitResult::Ended { result: Err(RejectionCode::ApprovalInsufficient), .. }) => bail!(
            "the ledger did not register tenant {tenant}: {} of its members approve, and a quorum has to; name the \
             governance keys of more with --approve-with",
            governance.len()
        ),
        other => bail!("the ledger did not register tenant {tenant}: {other:?}"),
    }
}

/// Puts a tenant with a secret of its own into the database, unless it is there.
pub(crate) async fn insert(
    store: &(impl TenantStore + ?Sized),
    kek: &KeyEncryptionKey,
    random: &dyn Random,
    tenant: &str,
    network: &str,
    now_ms: u64,
) -> anyhow::Result<()> {
    if store.tenant(network, tenant).await?.is_some() {
        return Ok(());
    }
    let mut secret = Zeroizing::new([0_u8; TENANT_SECRET_BYTES]);
    random.fill(secret.as_mut())?;
    let row = TenantRow {
        id: tenant.to_owned(),
        network: network.to_owned(),
        wrapped_secret: kek.wrap(tenant, &secret, random)?,
        active: true,
        signatures_required: false,
        limits: Limits::default(),
        created_at: now_ms,
    };
    // Somebody else may have inserted it meanwhile; then theirs stands.
    store.insert_tenant(row).await?;
    Ok(())
}

/// Makes sure that the database knows `key` as a key of `tenant` with every scope.
pub(crate) async fn ensure_key(
    store: &(impl TenantStore + ?Sized),
    key: &ApiKey,
    hashing_key: &[u8; 32],
    tenant: &str,
    now_ms: u64,
) -> anyhow::Result<()> {
    let hash = key.hash(hashing_key);
    if store.api_key(&hash).await?.is_some() {
        return Ok(());
    }
    let terms = KeyTerms { scopes: vec![Scope::Read, Scope::Write], allowed: Vec::new(), expires_at: None };
    insert_key(store, key, hashing_key, tenant, terms, now_ms).await
}

/// Puts the hash of a key of `tenant` into the database.
pub(crate) async fn insert_key(
    store: &(impl TenantStore + ?Sized),
    key: &ApiKey,
    hashing_key: &[u8; 32],
    tenant: &str,
    terms: KeyTerms,
    now_ms: u64,
) -> anyhow::Result<()> {
    let hash = key.hash(hashing_key);
    let row = ApiKeyRow {
        id: format!("key_{}", &hash.to_string()[..24]),
        hash,
        tenant: tenant.to_owned(),
        network: key.network().to_owned(),
        scopes: terms.scopes,
        allowed: terms.allowed,
        created_at: now_ms,
        expires_at: terms.expires_at,
        revoked_at: None,
    };
    store.insert_api_key(row).await.context("store the API key")
}

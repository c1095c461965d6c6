//! `TenantStore`.

use chopmark_domain::{
    ports::{TenantAdmin as _, TenantStore as _},
    quota::{Limits, Rate},
    tenant::{ApiKeyRow, Scope, SigningKeyRow, TenantRow},
};

use crate::fixtures::*;

fn tenant(id: &str) -> TenantRow {
    TenantRow {
        id: id.to_owned(),
        network: NETWORK.to_owned(),
        wrapped_secret: vec![7; 60],
        active: true,
        signatures_required: false,
        limits: Limits::default(),
        created_at: NOW,
    }
}

fn api_key(number: u64) -> ApiKeyRow {
    ApiKeyRow {
        id: format!("key_{number}"),
        hash: h("api key", number),
        tenant: TENANT.to_owned(),
        network: NETWORK.to_owned(),
        scopes: vec![Scope::Read, Scope::Write],
        allowed: vec![],
        created_at: NOW,
        expires_at: None,
        revoked_at: None,
    }
}

pub(crate) async fn a_tenant_is_added_once(backend: &impl Backend) {
    let store = backend.open().await;
    assert_eq!(store.tenant(NETWORK, TENANT).await.unwrap(), None);
    assert!(store.insert_tenant(tenant(TENANT)).await.unwrap());
    let other = TenantRow { wrapped_secret: vec![8; 60], active: false, created_at: NOW + 1, ..tenant(TENANT) };
    assert!(!store.insert_tenant(other).await.unwrap());
    assert_eq!(store.tenant(NETWORK, TENANT).await.unwrap(), Some(tenant(TENANT)));

    assert_eq!(store.tenant("live", TENANT).await.unwrap(), None);
    assert_eq!(store.tenant(NETWORK, OTHER_TENANT).await.unwrap(), None);
    let live = TenantRow { network: "live".to_owned(), active: false, ..tenant(TENANT) };
    assert!(store.insert_tenant(live.clone()).await.unwrap());
    assert_eq!(store.tenant("live", TENANT).await.unwrap(), Some(live));
}

pub(crate) async fn a_key_is_found_by_its_hash(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_tenant(tenant(TENANT)).await.unwrap();
    let narrow = ApiKeyRow { scopes: vec![Scope::Read], expires_at: Some(NOW + 9), ..api_key(2) };
    let none = ApiKeyRow { scopes: vec![], revoked_at: Some(NOW), ..api_key(3) };
    for key in [api_key(1), narrow.clone(), none.clone()] {
        assert_eq!(store.api_key(&key.hash).await.unwrap(), None);
        store.insert_api_key(key.clone()).await.unwrap();
    }
    for key in [api_key(1), narrow, none] {
        assert_eq!(store.api_key(&key.hash).await.unwrap(), Some(key));
    }
    assert_eq!(store.api_key(&h("api key", 4)).await.unwrap(), None);
}

pub(crate) async fn a_key_may_be_added_again_but_not_changed(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_tenant(tenant(TENANT)).await.unwrap();
    store.insert_api_key(api_key(1)).await.unwrap();
    store.insert_api_key(api_key(1)).await.unwrap();
    assert!(is_broken(&store.insert_api_key(ApiKeyRow { hash: h("api key", 2), ..api_key(1) }).await));
    assert!(is_broken(&store.insert_api_key(ApiKeyRow { scopes: vec![], ..api_key(1) }).await));
    assert!(is_broken(&store.insert_api_key(ApiKeyRow { hash: h("api key", 1), ..api_key(2) }).await));
    assert_eq!(store.api_key(&h("api key", 1)).await.unwrap(), Some(api_key(1)));
    assert_eq!(store.api_key(&h("api key", 2)).await.unwrap(), None);

    // A retry does not bring a revoked key back.
    assert!(store.revoke_api_key("key_1", NOW + 5).await.unwrap());
    store.insert_api_key(api_key(1)).await.unwrap();
    assert_eq!(store.api_key(&h("api key", 1)).await.unwrap().unwrap().revoked_at, Some(NOW + 5));
}

pub(crate) async fn a_key_needs_its_tenant(backend: &impl Backend) {
    let store = backend.open().await;
    assert!(is_broken(&store.insert_api_key(api_key(1)).await));
    let live = TenantRow { network: "live".to_owned(), ..tenant(TENANT) };
    store.insert_tenant(live).await.unwrap();
    assert!(is_broken(&store.insert_api_key(api_key(1)).await));
    assert_eq!(store.api_key(&h("api key", 1)).await.unwrap(), None);
}

pub(crate) async fn a_key_is_revoked_by_id(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_tenant(tenant(TENANT)).await.unwrap();
    store.insert_api_key(api_key(1)).await.unwrap();
    store.insert_api_key(api_key(2)).await.unwrap();
    assert!(!store.revoke_api_key("key_9", NOW).await.unwrap());

    let revoked_at = || async { store.api_key(&h("api key", 1)).await.unwrap().unwrap().revoked_at };
    // The earliest revocation counts.
    for (at, expected) in [(20, 20), (30, 20), (10, 10)] {
        assert!(store.revoke_api_key("key_1", NOW + at).await.unwrap());
        assert_eq!(revoked_at().await, Some(NOW + expected));
    }
    assert_eq!(store.api_key(&h("api key", 2)).await.unwrap(), Some(api_key(2)));
}

pub(crate) async fn a_key_ends_at_the_earliest_time(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_tenant(tenant(TENANT)).await.unwrap();
    store.insert_api_key(api_key(1)).await.unwrap();
    store.insert_api_key(api_key(2)).await.unwrap();
    assert!(!store.expire_api_key("key_9", NOW).await.unwrap());
    for (at, expected) in [(20, 20), (30, 20), (10, 10)] {
        assert!(store.expire_api_key("key_1", NOW + at).await.unwrap());
        let key = store.api_key(&h("api key", 1)).await.unwrap().unwrap();
        assert_eq!(key.expires_at, Some(NOW + expected));
    }
    // Adding it again is no way around.
    store.insert_api_key(api_key(1)).await.unwrap();
    assert_eq!(store.api_key(&h("api key", 1)).await.unwrap().unwrap().expires_at, Some(NOW + 10));
    assert_eq!(store.api_key(&h("api key", 2)).await.unwrap(), Some(api_key(2)));
}

pub(crate) async fn limits_and_suspension_are_kept(backend: &impl Backend) {
    let store = backend.open().await;
    let first = Limits { rate: Some(Rate::new(5, u32::MAX)), records_per_day: None };
    store.insert_tenant(TenantRow { limits: first, ..tenant(TENANT) }).await.unwrap();
    store.insert_tenant(tenant(OTHER_TENANT)).await.unwrap();
    store.insert_tenant(TenantRow { network: "live".to_owned(), ..tenant(TENANT) }).await.unwrap();
    assert_eq!(store.tenant(NETWORK, TENANT).await.unwrap().unwrap().limits, first);

    let second = Limits { rate: None, records_per_day: Some(i64::MAX.unsigned_abs()) };
    assert!(store.set_tenant_limits(NETWORK, TENANT, second).await.unwrap());
    assert!(store.set_tenant_active(NETWORK, TENANT, false).await.unwrap());
    let found = store.tenant(NETWORK, TENANT).await.unwrap().unwrap();
    assert_eq!((found.limits, found.active), (second, false));
    assert!(store.set_tenant_limits(NETWORK, TENANT, Limits::default()).await.unwrap());
    assert!(store.set_tenant_active(NETWORK, TENANT, true).await.unwrap());
    for (network, id) in [(NETWORK, TENANT), (NETWORK, OTHER_TENANT), ("live", TENANT)] {
        let expected = TenantRow { network: network.to_owned(), ..tenant(id) };
        assert_eq!(store.tenant(network, id).await.unwrap(), Some(expected));
    }
    assert!(!store.set_tenant_active(NETWORK, "ten_nobody", false).await.unwrap());
    assert!(!store.set_tenant_limits("live", OTHER_TENANT, second).await.unwrap());
    let too_many = Limits { records_per_day: Some(u64::MAX), ..second };
    assert!(is_broken(&store.set_tenant_limits(NETWORK, TENANT, too_many).await));
}

pub(crate) async fn everything_of_a_tenant_is_listed(backend: &impl Backend) {
    let store = backend.open().await;
    for id in [OTHER_TENANT, TENANT] {
        store.insert_tenant(tenant(id)).await.unwrap();
    }
    store.insert_tenant(TenantRow { network: "live".to_owned(), ..tenant(TENANT) }).await.unwrap();
    let mut expected = [tenant(TENANT), tenant(OTHER_TENANT)];
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.tenants(NETWORK).await.unwrap(), expected);

    let allowed = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let newer = ApiKeyRow { allowed, created_at: NOW + 1, ..api_key(1) };
    let keys = [newer.clone(), api_key(2), ApiKeyRow { network: "live".to_owned(), ..api_key(3) }];
    for key in keys.into_iter().chain([ApiKeyRow { tenant: OTHER_TENANT.to_owned(), ..api_key(4) }]) {
        store.insert_api_key(key).await.unwrap();
    }
    assert_eq!(store.api_keys(NETWORK, TENANT).await.unwrap(), [api_key(2), newer]);
    assert_eq!(store.api_keys(NETWORK, "ten_nobody").await.unwrap(), []);
}

fn signing_key(number: u64) -> SigningKeyRow {
    SigningKeyRow {
        id: format!("sgk_{number}"),
        network: NETWORK.to_owned(),
        tenant: TENANT.to_owned(),
        public_key: h("signing key", number),
        created_at: NOW,
        revoked_at: None,
    }
}

pub(crate) async fn a_signing_key_is_its_tenants(backend: &impl Backend) {
    let store = backend.open().await;
    assert!(is_broken(&store.insert_signing_key(signing_key(1)).await));
    for id in [TENANT, OTHER_TENANT] {
        store.insert_tenant(tenant(id)).await.unwrap();
    }
    let older = SigningKeyRow { created_at: NOW - 1, ..signing_key(2) };
    let others = SigningKeyRow { tenant: OTHER_TENANT.to_owned(), ..signing_key(3) };
    for key in [signing_key(1), older.clone(), others.clone()] {
        store.insert_signing_key(key).await.unwrap();
    }
    assert_eq!(store.signing_key(NETWORK, TENANT, "sgk_1").await.unwrap(), Some(signing_key(1)));
    assert_eq!(store.signing_key(NETWORK, OTHER_TENANT, "sgk_3").await.unwrap(), Some(others));
    for (network, tenant, id) in [
        (NETWORK, OTHER_TENANT, "sgk_1"),
        (NETWORK, TENANT, "sgk_3"),
        ("live", TENANT, "sgk_1"),
        (NETWORK, TENANT, "sgk_9"),
    ] {
        assert_eq!(store.signing_key(network, tenant, id).await.unwrap(), None, "{network} {tenant} {id}");
    }
    assert_eq!(store.signing_keys(NETWORK, TENANT).await.unwrap(), [older, signing_key(1)]);
    assert_eq!(store.signing_keys("live", TENANT).await.unwrap(), []);
}

pub(crate) async fn a_signing_key_is_revoked_for_ever(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_tenant(tenant(TENANT)).await.unwrap();
    store.insert_signing_key(signing_key(1)).await.unwrap();
    store.insert_signing_key(signing_key(2)).await.unwrap();
    assert!(!store.revoke_signing_key(NETWORK, "sgk_9", NOW).await.unwrap());
    assert!(!store.revoke_signing_key("live", "sgk_1", NOW).await.unwrap());
    let revoked_at = || async { store.signing_key(NETWORK, TENANT, "sgk_1").await.unwrap().unwrap().revoked_at };
    // The earliest revocation counts.
    for (at, expected) in [(20, 20), (30, 20), (10, 10)] {
        assert!(store.revoke_signing_key(NETWORK, "sgk_1", NOW + at).await.unwrap());
        assert_eq!(revoked_at().await, Some(NOW + expected));
    }
    // Adding it again, later, is no way around; and its id is no other key's.
    store.insert_signing_key(SigningKeyRow { created_at: NOW + 7, ..signing_key(1) }).await.unwrap();
    assert_eq!(revoked_at().await, Some(NOW + 10));
    let other = SigningKeyRow { public_key: h("signing key", 2), ..signing_key(1) };
    assert!(is_broken(&store.insert_signing_key(other).await));
    assert_eq!(store.signing_key(NETWORK, TENANT, "sgk_2").await.unwrap(), Some(signing_key(2)));
}

pub(crate) async fn a_tenant_may_have_to_sign(backend: &impl Backend) {
    let store = backend.open().await;
    for id in [TENANT, OTHER_TENANT] {
        store.insert_tenant(tenant(id)).await.unwrap();
    }
    assert!(!store.set_signatures_required(NETWORK, "ten_nobody", true).await.unwrap());
    for required in [true, true, false] {
        assert!(store.set_signatures_required(NETWORK, TENANT, required).await.unwrap());
        let expected = TenantRow { signatures_required: required, ..tenant(TENANT) };
        assert_eq!(store.tenant(NETWORK, TENANT).await.unwrap(), Some(expected));
        assert_eq!(store.tenant(NETWORK, OTHER_TENANT).await.unwrap(), Some(tenant(OTHER_TENANT)));
    }
}

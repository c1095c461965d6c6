//! `TenantStore`.

use chopmark_domain::{
    ports::TenantStore as _,
    tenant::{ApiKeyRow, Scope, TenantRow},
};

use crate::fixtures::*;

fn tenant(id: &str) -> TenantRow {
    TenantRow {
        id: id.to_owned(),
        network: NETWORK.to_owned(),
        wrapped_secret: vec![7; 60],
        active: true,
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

//! Row-level security by itself, with raw SQL as each role, and the roles that a process refuses to have.

use chopmark_domain::{
    ports::{OperationStore as _, ProjectionStore as _, TenantAdmin as _, TenantStore as _},
    quota::Limits,
    tenant::{ApiKeyRow, Scope, SigningKeyRow, TenantRow},
};
use chopmark_store::{PostgresOpenError, PostgresRole, PostgresSettings, PostgresStore};
use diesel::{PgConnection, QueryResult, connection::SimpleConnection as _};

use super::{Database, OWNER, Roles, SUPERUSER, Server, count};
use crate::fixtures::*;

const TENANT_TABLES: [&str; 6] = ["operations", "private_parts", "case_links", "tenants", "api_keys", "signing_keys"];

/// Two tenants with a row in every table, on two networks.
async fn filled(database: &Database) -> Roles {
    database.migrate().await;
    let store = database.open().await;
    for (number, tenant, network) in [(1, TENANT, NETWORK), (2, OTHER_TENANT, NETWORK), (3, TENANT, "live")] {
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        let mut sent = attempt(number, 1);
        (sent.network, sent.tenant) = (network.clone(), tenant.clone());
        store.insert_accepted(vec![sent.clone()]).await.unwrap();
        let mut block = block(store.cursor(&network).await.unwrap().map_or(1, |at| at.height + 1), vec![]);
        block.links = vec![link(number, 1)];
        block.links[0].tenant.clone_from(&tenant);
        block.network.clone_from(&network);
        block.operations = vec![outcome(&sent, committed(block.height, number))];
        assert!(store.project(block).await.unwrap());
        let row = TenantRow {
            id: tenant.clone(),
            network: network.clone(),
            wrapped_secret: vec![7; 60],
            active: true,
            signatures_required: false,
            limits: Limits::default(),
            created_at: NOW,
        };
        assert!(store.insert_tenant(row).await.unwrap());
        let key = ApiKeyRow {
            id: format!("key_{number}"),
            hash: h("api key", number),
            tenant: tenant.clone(),
            network: network.clone(),
            scopes: vec![Scope::Read],
            allowed: vec![],
            created_at: NOW,
            expires_at: None,
            revoked_at: None,
        };
        store.insert_api_key(key).await.unwrap();
        store.insert_signing_key(signing_key(&network, &tenant, number)).await.unwrap();
    }
    store
}

fn signing_key(network: &str, tenant: &str, number: u64) -> SigningKeyRow {
    SigningKeyRow {
        id: format!("sgk_{number}"),
        network: network.to_owned(),
        tenant: tenant.to_owned(),
        public_key: h("signing key", number),
        created_at: NOW,
        revoked_at: None,
    }
}

/// Rows of `table` that a transaction sees after `settings`.
fn seen(connection: &mut PgConnection, settings: &str, table: &str) -> QueryResult<i64> {
    connection.batch_execute("ROLLBACK; BEGIN")?;
    connection.batch_execute(&format!("SELECT 1; {settings}"))?;
    count(connection, &format!("SELECT count(*) AS count FROM {table}"))
}

fn acting(network: &str, tenant: &str) -> String {
    format!("SET LOCAL chopmark.network = '{network}'; SET LOCAL chopmark.tenant = '{tenant}'")
}

#[tokio::test]
async fn a_gateway_sees_one_tenant_whatever_it_asks() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    let _store = filled(&database).await;
    let mut app = database.connect(PostgresRole::Gateway.as_str());
    for table in TENANT_TABLES {
        let all = count(&mut database.connect(SUPERUSER), &format!("SELECT count(*) AS count FROM {table}")).unwrap();
        assert_eq!(all, 3, "{table}");
        // Nobody, half of somebody, and somebody who is not there.
        for settings in [
            String::new(),
            acting("", ""),
            format!("SET LOCAL chopmark.tenant = '{TENANT}'"),
            format!("SET LOCAL chopmark.network = '{NETWORK}'"),
            acting("live", OTHER_TENANT),
            acting(NETWORK, "%"),
            "SET LOCAL row_security = on".to_owned(),
        ] {
            assert_eq!(seen(&mut app, &settings, table).unwrap(), 0, "{table}: {settings}");
        }
        // To switch it off is an error, not a way around it.
        assert!(seen(&mut app, "SET LOCAL row_security = off", table).is_err());
    }
    for table in TENANT_TABLES.iter().filter(|table| **table != "api_keys") {
        assert_eq!(seen(&mut app, &acting(NETWORK, TENANT), table).unwrap(), 1, "{table}");
        let column = if *table == "tenants" { "id" } else { "tenant" };
        let others = format!("{table} WHERE {column} = '{OTHER_TENANT}' OR network <> '{NETWORK}'");
        assert_eq!(seen(&mut app, &acting(NETWORK, TENANT), &others).unwrap(), 0, "{table}");
        // It holds for the transaction only.
        assert_eq!(seen(&mut app, "", table).unwrap(), 0, "{table}");
    }
    let by_hash = |number| format!("SET LOCAL chopmark.api_key = '{}'", h("api key", number));
    assert_eq!(seen(&mut app, &by_hash(1), "api_keys").unwrap(), 1);
    assert_eq!(seen(&mut app, &by_hash(9), "api_keys").unwrap(), 0);
    assert_eq!(seen(&mut app, &by_hash(1), "api_keys WHERE tenant <> 'ten_first'").unwrap(), 0);
}

#[tokio::test]
async fn the_stores_own_queries_are_bound_too() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    let store = filled(&database).await;
    let theirs = [key(1), key(2), key(3)];
    let found = store.gateway.find(NETWORK, TENANT, &theirs).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(store.gateway.sealed_private(NETWORK, TENANT, &op(2), &h("attempt", 1)).await.unwrap(), None);
    assert_eq!(store.gateway.case_links(NETWORK, TENANT, &key(2), 0, 9).await.unwrap(), []);
    // The next call on the same connection acts for somebody else.
    assert!(store.gateway.find(NETWORK, OTHER_TENANT, &theirs).await.unwrap()[1].is_some());
    assert!(store.gateway.tenant("live", OTHER_TENANT).await.unwrap().is_none());
    assert!(store.gateway.signing_key(NETWORK, TENANT, "sgk_1").await.unwrap().is_some());
    assert_eq!(store.gateway.signing_key(NETWORK, TENANT, "sgk_2").await.unwrap(), None);
}

/// Queries that name no tenant (ADR 0023). The workspace's tests have the feature; those of this package by
/// itself need `--features unfiltered`.
#[cfg(feature = "unfiltered")]
#[tokio::test]
async fn security_holds_where_no_query_names_a_tenant() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    drop(filled(&database).await);
    let store = PostgresStore::open_unfiltered(database.settings(PostgresRole::Gateway)).await.unwrap();
    // Rows by key, rows of a list, links of another's case, and another's private part.
    let seen = async || {
        let found = store.find(NETWORK, TENANT, &[key(1), key(2), key(3)]).await.unwrap();
        let listed = store.list(everything()).await.unwrap().len();
        let links = store.case_links(NETWORK, TENANT, &key(2), 0, 9).await.unwrap().len();
        let sealed = store.sealed_private(NETWORK, TENANT, &op(2), &h("attempt", 1)).await.unwrap();
        (found.iter().map(Option::is_some).collect::<Vec<_>>(), listed, links, sealed)
    };
    assert_eq!(seen().await, (vec![true, false, false], 1, 0, None));
    for (network, tenant) in [(NETWORK, TENANT), (NETWORK, OTHER_TENANT), ("live", TENANT)] {
        let row = store.tenant(network, tenant).await.unwrap().unwrap();
        assert_eq!((row.network.as_str(), row.id.as_str()), (network, tenant));
    }
    assert!(store.tenant("live", OTHER_TENANT).await.unwrap().is_none());
    assert_eq!(store.signing_key(NETWORK, TENANT, "sgk_2").await.unwrap(), None);
    // It was security that held them back.
    let mut superuser = database.connect(SUPERUSER);
    for table in TENANT_TABLES {
        superuser.batch_execute(&format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).unwrap();
    }
    assert_eq!(seen().await, (vec![true, true, true], 3, 1, Some(sealed(2, 1))));
    assert!(store.tenant("live", OTHER_TENANT).await.unwrap().is_some());
    assert!(store.signing_key(NETWORK, TENANT, "sgk_2").await.unwrap().is_some());
}

#[tokio::test]
async fn each_role_does_its_own_work_only() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    let store = filled(&database).await;
    // The gateway's user writes nothing, for whomever it acts.
    let mut app = database.connect(PostgresRole::Gateway.as_str());
    for write in [
        "UPDATE operations SET conflicted = true",
        "DELETE FROM private_parts",
        "DELETE FROM case_links",
        "INSERT INTO tenants VALUES ('sandbox', 'ten_new', '', true, 0)",
        "UPDATE api_keys SET revoked_at = NULL",
        "UPDATE signing_keys SET revoked_at = NULL",
        "INSERT INTO signing_keys SELECT network, 'sgk_new', tenant, public_key, 0 FROM signing_keys",
        "UPDATE tenants SET signatures_required = false",
        "UPDATE projection_cursors SET height = 0",
        "DROP POLICY one_tenant ON operations",
        "ALTER TABLE operations DISABLE ROW LEVEL SECURITY",
        "TRUNCATE operations",
        "SET ROLE chopmark_owner",
        "SET ROLE chopmark_committer",
    ] {
        let error = seen(&mut app, &format!("{}; {write}", acting(NETWORK, TENANT)), "operations").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("denied") || text.contains("must be owner"), "{write}: {text}");
    }
    // A committer reads neither what is sealed nor a tenant's secret; the administrator no operation.
    for (role, query) in [
        (PostgresRole::Committer, "SELECT sealed FROM private_parts"),
        (PostgresRole::Committer, "SELECT * FROM private_parts"),
        (PostgresRole::Committer, "SELECT external_index FROM private_parts"),
        (PostgresRole::Committer, "DELETE FROM operations"),
        (PostgresRole::Committer, "SELECT id FROM tenants"),
        (PostgresRole::Committer, "SELECT id FROM api_keys"),
        (PostgresRole::Committer, "SELECT id FROM signing_keys"),
        (PostgresRole::Admin, "SELECT key FROM operations"),
        (PostgresRole::Admin, "SELECT sealed FROM private_parts"),
        (PostgresRole::Admin, "UPDATE tenants SET wrapped_secret = wrapped_secret"),
        (PostgresRole::Admin, "UPDATE api_keys SET hash = hash"),
        (PostgresRole::Admin, "DELETE FROM api_keys"),
        (PostgresRole::Admin, "UPDATE signing_keys SET public_key = public_key"),
        (PostgresRole::Admin, "DELETE FROM signing_keys"),
    ] {
        let error = database.connect(role.as_str()).batch_execute(query).unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{query}: {error}");
    }
    // Forced: the owner of the tables sees nothing either.
    let mut owner = database.connect(OWNER);
    for table in TENANT_TABLES {
        assert_eq!(count(&mut owner, &format!("SELECT count(*) AS count FROM {table}")).unwrap(), 0, "{table}");
    }
    // A call that is another role's is an error that no retry heals.
    assert!(is_broken(&store.gateway.insert_accepted(vec![accepted(9)]).await));
    assert!(is_broken(&store.committer.revoke_api_key("key_1", NOW).await));
    assert!(is_broken(&store.admin.project(block(9, vec![])).await));
}

async fn refusal(url: &str, role: PostgresRole) -> PostgresOpenError {
    PostgresStore::open(PostgresSettings::new(url, role).unwrap()).await.unwrap_err()
}

#[tokio::test]
async fn a_role_that_security_does_not_bind_is_refused() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    database.migrate().await;
    let names = |suffix: &str| format!("{}_{suffix}", database.name);
    let (bypass, member, both, fine) = (names("bypass"), names("member"), names("both"), names("fine"));
    let mut superuser = database.connect(SUPERUSER);
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {bypass} LOGIN BYPASSRLS IN ROLE chopmark_app;
             CREATE ROLE {member} LOGIN IN ROLE chopmark_app, chopmark_owner;
             CREATE ROLE {both} LOGIN IN ROLE chopmark_app, chopmark_committer;
             CREATE ROLE {fine} LOGIN IN ROLE chopmark_app;"
        ))
        .unwrap();
    for (user, expected) in [
        (SUPERUSER, "role postgres is a superuser"),
        (bypass.as_str(), "is allowed to bypass row-level security"),
        (OWNER, "role chopmark_owner is no member of chopmark_app"),
        (member.as_str(), "is owner of the table"),
        (both.as_str(), "is a member of chopmark_committer"),
        ("chopmark_committer", "role chopmark_committer is no member of chopmark_app"),
    ] {
        let error = refusal(&database.url(user), PostgresRole::Gateway).await.to_string();
        assert!(error.contains(expected) && error.contains("log in as chopmark_app"), "{user}: {error}");
    }
    let settings = PostgresSettings::new(&database.url(&fine), PostgresRole::Gateway).unwrap();
    let store = PostgresStore::open(settings).await.unwrap();
    assert_eq!(store.find(NETWORK, TENANT, &[key(1)]).await.unwrap(), [None]);
    drop(store);
    superuser.batch_execute(&format!("DROP ROLE {bypass}, {member}, {both}, {fine}")).unwrap();
}

#[tokio::test]
async fn a_table_without_forced_security_is_refused() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    database.migrate().await;
    let mut owner = database.connect(OWNER);
    let url = database.url(PostgresRole::Gateway.as_str());
    for (spoil, heal, table) in [
        (
            "ALTER TABLE case_links NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE case_links FORCE ROW LEVEL SECURITY",
            "case_links",
        ),
        (
            "ALTER TABLE operations DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE operations ENABLE ROW LEVEL SECURITY",
            "operations",
        ),
        ("CREATE TABLE notes (tenant TEXT)", "DROP TABLE notes", "notes"),
    ] {
        owner.batch_execute(spoil).unwrap();
        let error = refusal(&url, PostgresRole::Gateway).await;
        assert!(matches!(&error, PostgresOpenError::Unforced(name) if name == table), "{error}");
        assert!(error.to_string().contains(&format!("ALTER TABLE {table} ENABLE")), "{error}");
        owner.batch_execute(heal).unwrap();
    }
    database.open().await;
}

#[tokio::test]
async fn no_error_shows_a_password() {
    let Some(server) = Server::find() else { return };
    let url = server.url("nobody:s3cret", "nowhere");
    let error = refusal(&url, PostgresRole::Gateway).await;
    let text = format!("{error:?} {error} {}", std::error::Error::source(&error).unwrap());
    assert!(text.contains("nobody") && !text.contains("s3cret"), "{text}");
    let error = PostgresStore::migrate(&url).await.unwrap_err();
    assert!(!format!("{error:?}").contains("s3cret"));
}

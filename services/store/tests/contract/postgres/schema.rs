//! Migrations: the way from any version to the newest, and what a program does at another one.

use std::{collections::BTreeSet, fs, path::PathBuf};

use chopmark_domain::ports::OperationStore as _;
use chopmark_store::{PostgresOpenError, PostgresRole, PostgresStore};
use diesel::{Connection as _, PgConnection, SqliteConnection, connection::SimpleConnection as _};
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};

use super::{Database, OWNER, SUPERUSER, Server, count, lines};
use crate::{fixtures::*, sqlite::TempSqlite};

fn folder(database: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/migrations")).join(database)
}

fn files(database: &str) -> BTreeSet<String> {
    let folders = fs::read_dir(folder(database)).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    files.map(|path| path.strip_prefix(folder(database)).unwrap().display().to_string()).collect()
}

#[test]
fn both_databases_have_the_same_migrations() {
    assert_eq!(files("postgres"), files("sqlite"));
    assert!(files("sqlite").len() >= 8);
}

/// Everything that migrations make, in the words of the catalogue.
const CATALOGUE: &str = "
    SELECT format('column %s.%s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation) AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
    UNION ALL SELECT format('storage %s.%s %s %s %s', c.relname, a.attname, a.attstorage, a.attidentity,
        (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(a.attacl) x))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    UNION ALL SELECT format('relation %s %s %s %s %s %s', relname, relkind, relowner::regrole, relrowsecurity,
        relforcerowsecurity, (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(relacl) x))
    FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT format('policy %s %s %s %s %s %s %s', tablename, policyname, permissive, roles, cmd, qual, with_check)
    FROM pg_policies WHERE schemaname = 'public'
    UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ORDER BY line";

fn catalogue(database: &Database) -> Vec<String> {
    lines(&mut database.connect(SUPERUSER), CATALOGUE)
}

/// Rows of the schema after each migration, as a program of that time would have left them.
const ROWS: [&str; 7] = [
    "INSERT INTO tenants VALUES ('sandbox', 'ten_first', 'x', true, 1), ('sandbox', 'ten_second', 'x', true, 1);
     INSERT INTO api_keys VALUES ('key_1', decode(repeat('01', 32), 'hex'), 'sandbox', 'ten_first', 'read', 1);",
    "INSERT INTO operations (sequence, network, key, op, tenant, kind, request, operation_hash, accepted_at, conflicted, state)
     SELECT nextval('operation_sequence'), 'sandbox', decode(repeat('0' || n, 16), 'hex'), decode(repeat('00', 32), 'hex'),
        CASE n WHEN 1 THEN 'ten_first' ELSE 'ten_second' END, 1, decode(repeat('00', 32), 'hex'),
        decode(repeat('00', 32), 'hex'), 1, false, 0
     FROM generate_series(1, 2) n;
     INSERT INTO private_parts (sequence, operation_hash, sealed, accepted_at)
     SELECT sequence, operation_hash, 'x', 1 FROM operations;",
    "INSERT INTO projection_cursors VALUES ('sandbox', 1, decode(repeat('00', 32), 'hex'), 1);
     INSERT INTO case_links SELECT 'sandbox', key, 1, key, 1, op, op, 1 FROM operations WHERE tenant = 'ten_second';",
    "SELECT",
    "SELECT",
    "SELECT",
    "SELECT",
];

#[tokio::test]
async fn the_way_through_every_version_leads_to_the_fresh_schema() {
    let Some(server) = Server::find() else { return };
    let (fresh, upgraded) = (server.empty(), server.empty());
    fresh.migrate().await;

    let mut owner = upgraded.connect(OWNER);
    let migrations = || FileBasedMigrations::from_path(folder("postgres")).unwrap();
    for rows in ROWS {
        owner.run_next_migration(migrations()).unwrap();
        owner.batch_execute(rows).unwrap();
    }
    assert!(!owner.has_pending_migration(migrations()).unwrap(), "a migration without rows before it");
    assert_eq!(catalogue(&upgraded), catalogue(&fresh));
    let of_rows = "SELECT tenant || ' ' || network AS line FROM private_parts UNION ALL
        SELECT 'link ' || tenant FROM case_links ORDER BY line";
    let expected = ["link ten_second", "ten_first sandbox", "ten_second sandbox"];
    assert_eq!(lines(&mut upgraded.connect(SUPERUSER), of_rows), expected);
    upgraded.open().await;

    // And back: nothing is left but diesel's own table.
    drop(owner);
    let mut owner = fresh.connect(OWNER);
    owner.revert_all_migrations(migrations()).unwrap();
    let left =
        "SELECT relname::text AS line FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'i'
        UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    assert_eq!(lines(&mut owner, left), ["__diesel_schema_migrations"]);
    fresh.migrate().await;
    assert_eq!(catalogue(&fresh), catalogue(&upgraded));
}

#[tokio::test]
async fn both_databases_have_the_same_columns() {
    let Some(server) = Server::find() else { return };
    let (postgres, sqlite) = (server.empty(), TempSqlite::new());
    postgres.migrate().await;
    sqlite.open().await;
    let of_postgres = "SELECT table_name || '.' || column_name AS line FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name NOT LIKE '\\_\\_%' ORDER BY line";
    let of_sqlite = "SELECT t.name || '.' || c.name AS line FROM pragma_table_list t, pragma_table_info(t.name) c
        WHERE t.schema = 'main' AND t.name NOT LIKE '\\_\\_%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite%' ORDER BY line";
    let mut connection = SqliteConnection::establish(&sqlite.file()).unwrap();
    let rows = diesel::RunQueryDsl::load::<super::Line>(diesel::sql_query(of_sqlite), &mut connection).unwrap();
    let rows: Vec<_> = rows.into_iter().map(|row| row.line).collect();
    assert_eq!(lines(&mut postgres.connect(SUPERUSER), of_postgres), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_at_once_happens_once() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let url = database.url(OWNER);
            tokio::spawn(async move { PostgresStore::migrate(&url).await.unwrap().len() })
        })
        .collect();
    let mut applied = Vec::new();
    for task in tasks {
        applied.push(task.await.unwrap());
    }
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, 0, 0, ROWS.len()]);
    let mut owner = database.connect(OWNER);
    let rows = count(&mut owner, "SELECT count(*) AS count FROM __diesel_schema_migrations").unwrap();
    assert_eq!(usize::try_from(rows).unwrap(), ROWS.len());
}

#[tokio::test]
async fn whoever_migrates_the_tables_are_the_owners() {
    let Some(server) = Server::find() else { return };
    let (by_owner, by_superuser) = (server.empty(), server.empty());
    by_owner.migrate().await;
    PostgresStore::migrate(&by_superuser.url(SUPERUSER)).await.unwrap();
    assert_eq!(catalogue(&by_superuser), catalogue(&by_owner));
    // The others may not.
    let error = PostgresStore::migrate(&by_owner.url("chopmark_app")).await.unwrap_err();
    assert!(format!("{error:?}").contains("permission denied"), "{error:?}");
}

#[tokio::test]
async fn another_version_is_refused() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    let open = async || PostgresStore::open(database.settings(PostgresRole::Gateway)).await.map(drop);
    let behind = |result: Result<(), PostgresOpenError>, expected: &str| {
        let error = result.unwrap_err();
        assert!(matches!(&error, PostgresOpenError::Behind { at, .. } if at == expected), "{error}");
        assert!(error.to_string().contains("chopmark admin migrate"), "{error}");
    };
    behind(open().await, "none");
    let mut owner = database.connect(OWNER);
    migrate_partly(&mut owner);
    behind(open().await, "none");
    owner.batch_execute("GRANT SELECT ON __diesel_schema_migrations TO chopmark_app").unwrap();
    behind(open().await, "0001");
    database.migrate().await;
    open().await.unwrap();

    owner.batch_execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')").unwrap();
    for error in [open().await.unwrap_err(), PostgresStore::migrate(&database.url(OWNER)).await.unwrap_err()] {
        assert!(matches!(&error, PostgresOpenError::Newer(version) if version == "9999"), "{error}");
    }
}

fn migrate_partly(owner: &mut PgConnection) {
    owner.run_next_migration(FileBasedMigrations::from_path(folder("postgres")).unwrap()).unwrap();
}

#[tokio::test]
async fn a_failing_migration_changes_nothing() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    // In the way of the last migration.
    let mut owner = database.connect(OWNER);
    let trap = "CREATE FUNCTION acting_for(name TEXT) RETURNS TEXT LANGUAGE sql RETURN ''";
    owner.batch_execute(trap).unwrap();
    let before = catalogue(&database);
    let error = PostgresStore::migrate(&database.url(OWNER)).await.unwrap_err();
    assert!(matches!(&error, PostgresOpenError::Migration(_)), "{error:?}");
    assert_eq!(catalogue(&database), before);
    owner.batch_execute("DROP FUNCTION acting_for").unwrap();
    database.migrate().await;
    let store = database.open().await;
    assert_eq!(store.find(NETWORK, TENANT, &[key(1)]).await.unwrap(), [None]);
}

//! Roles that may not change the schema: what they are told to do suffices.

use mikrotik_backup::adapters::postgres::{
    MigrateError, Migrated, OUR_FUNCTIONS, OUR_TABLES, SchemaState, grants,
};
use mikrotik_backup::domain::failure::chain;
use sqlx::{Connection as _, PgConnection};

use super::migrations::{newest, versions};
use crate::services::postgres::{Database, empty_database, fresh_database, open};

/// As many migrations as an older program knew.
const HALF: i64 = 9;

/// A database whose schema an older program made as role `owner`, which owns nothing else and is no
/// superuser. A role belongs to the server: its name is the test's own.
async fn half_migrated(owner: &str) -> Option<Database> {
    let database = empty_database().await?;
    database
        .sql(&format!(
            "CREATE ROLE {owner} LOGIN; CREATE SCHEMA mikrotik_backup AUTHORIZATION {owner}; \
             GRANT USAGE, CREATE ON SCHEMA public TO {owner}"
        ))
        .await;
    let mut migrator = sqlx::migrate!("./migrations/postgres");
    migrator.dangerous_set_table_name("mikrotik_backup._sqlx_migrations");
    migrator.set_locking(false);
    let connected = PgConnection::connect(&database.url_as(owner)).await;
    let mut connection = connected.expect("connect as the owner");
    let applied = migrator
        .run_direct(Some(HALF), &mut connection, false)
        .await;
    applied.expect("half of the migrations");
    Some(database)
}

/// What `role` is told when it migrates.
async fn told(database: &Database, role: &str) -> String {
    let error = open(&database.url_as(role), role)
        .migrate()
        .await
        .expect_err("it may not");
    let refused = matches!(&error, MigrateError::Privilege { role: named, .. } if named == role);
    assert!(refused, "{}", chain(&error));
    error.to_string()
}

/// Runs every statement that `told` has.
async fn carry_out(database: &Database, told: &str) {
    let statements = told.match_indices("GRANT ").map(|(at, _)| &told[at..]);
    for statement in statements {
        let end = statement.find(';').unwrap_or(statement.len());
        database.sql(&statement[..end]).await;
    }
}

/// `role` brings the schema up to date from where it was left.
async fn migrates(database: &Database, role: &str) {
    let store = open(&database.url_as(role), role);
    let migrated = store.migrate().await.expect("migrate");
    assert_eq!(
        migrated,
        Migrated {
            applied: versions().iter().filter(|version| **version > HALF).count(),
            hints_missing: None
        }
    );
    let state = store.schema_state().await.expect("look");
    assert_eq!(state, SchemaState::Current);
}

/// The statements that let a role read the schema, and create tables in it, do not let it change
/// those that are there.
const NARROW: &str = "CREATE ROLE half_narrow LOGIN; \
    GRANT USAGE, CREATE ON SCHEMA mikrotik_backup TO half_narrow; \
    GRANT SELECT ON mikrotik_backup._sqlx_migrations TO half_narrow";

#[tokio::test]
async fn of_a_schema_that_is_half_there_the_owner_is_named_and_suffices() {
    let Some(database) = half_migrated("half_owner").await else {
        return;
    };
    database.sql(NARROW).await;
    assert_eq!(
        told(&database, "half_narrow").await,
        "database role \"half_narrow\" may not change what is in schema mikrotik_backup; run \
         `mikrotik-backup migrate` as role \"half_owner\", which owns it"
    );
    migrates(&database, "half_owner").await;
    // Nothing is left to do for the other one.
    let again = open(&database.url_as("half_narrow"), "again")
        .migrate()
        .await;
    assert_eq!(again.expect("current").applied, 0);
}

#[tokio::test]
async fn a_role_that_reads_nothing_yet_is_told_all_at_once() {
    let Some(database) = half_migrated("blind_owner").await else {
        return;
    };
    database.sql("CREATE ROLE half_blind LOGIN").await;
    let told = told(&database, "half_blind").await;
    assert_eq!(
        told,
        "database role \"half_blind\" may not read mikrotik_backup._sqlx_migrations; run \
         `mikrotik-backup migrate` as role \"blind_owner\", which owns it, and let this role see it: \
         GRANT USAGE ON SCHEMA mikrotik_backup TO \"half_blind\"; \
         GRANT SELECT ON mikrotik_backup._sqlx_migrations TO \"half_blind\""
    );
    carry_out(&database, &told).await;
    migrates(&database, "blind_owner").await;
    let store = open(&database.url_as("half_blind"), "again");
    assert_eq!(store.migrate().await.expect("current").applied, 0);
    database.sql(&grants("half_blind")).await;
    store.ensure_rights().await.expect("all that running needs");
}

/// A member of the owner has its rights over the platform's tables, too: no role of the service is told
/// to become one, whatever it has and lacks.
#[tokio::test]
async fn no_membership_in_the_owner_is_recommended() {
    let Some(database) = half_migrated("lone_owner").await else {
        return;
    };
    for (role, rights) in [("lone_creator", "USAGE, CREATE"), ("lone_user", "USAGE")] {
        database
            .sql(&format!(
                "CREATE ROLE {role} LOGIN; GRANT {rights} ON SCHEMA mikrotik_backup TO {role}; \
                 GRANT SELECT ON mikrotik_backup._sqlx_migrations TO {role}"
            ))
            .await;
        assert_eq!(
            told(&database, role).await,
            format!(
                "database role \"{role}\" may not change what is in schema mikrotik_backup; run \
                 `mikrotik-backup migrate` as role \"lone_owner\", which owns it"
            )
        );
    }
    migrates(&database, "lone_owner").await;
}

/// What is there belongs to two roles, of which neither may change the other's: each way that is named
/// suffices.
#[tokio::test]
async fn of_several_owners_all_are_named() {
    for superuser in [true, false] {
        let (owner, role) = match superuser {
            true => ("mixed_owner", "half_mixed"),
            false => ("mixed_owner_too", "half_mixed_too"),
        };
        let Some(database) = half_migrated(owner).await else {
            return;
        };
        database
            .sql(&format!(
                "CREATE ROLE {role} LOGIN; CREATE ROLE second_{owner}; \
                 ALTER TABLE mikrotik_backup.attempts OWNER TO second_{owner}; \
                 GRANT USAGE ON SCHEMA mikrotik_backup TO {role}; \
                 GRANT SELECT ON mikrotik_backup._sqlx_migrations TO {role}"
            ))
            .await;
        let remedy = format!(
            "may not change what is in schema mikrotik_backup; run `mikrotik-backup migrate` as a \
             superuser, or as a role other than the service's that is a member of \"{owner}\" and \
             \"second_{owner}\", which own it"
        );
        for asked in [role, owner] {
            assert_eq!(
                told(&database, asked).await,
                format!("database role {asked:?} {remedy}")
            );
        }
        if superuser {
            migrates(&database, "postgres").await;
        } else {
            let member = format!("member_of_{owner}");
            database
                .sql(&format!(
                    "CREATE ROLE {member} LOGIN; GRANT {owner}, second_{owner} TO {member}"
                ))
                .await;
            migrates(&database, &member).await;
        }
    }
}

/// What others keep in the schema does not concern us: neither migrations nor running touch it.
#[tokio::test]
async fn what_is_not_ours_in_the_schema_is_let_be() {
    let Some(database) = half_migrated("among_others").await else {
        return;
    };
    database
        .sql(
            "CREATE TABLE mikrotik_backup.dba_notes (x int); \
             CREATE TABLE mikrotik_backup.archive_of_the_dba (x int); \
             CREATE FUNCTION mikrotik_backup.dba_helper() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             CREATE ROLE beside_others LOGIN; CREATE ROLE archiving_beside_others LOGIN; \
             GRANT USAGE ON SCHEMA mikrotik_backup TO archiving_beside_others; \
             GRANT SELECT ON devices, credential_profiles TO among_others",
        )
        .await;
    migrates(&database, "among_others").await;
    database
        .sql(&format!(
            "{}; GRANT SELECT ON mikrotik_backup._sqlx_migrations TO archiving_beside_others; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON mikrotik_backup.archive_devices, \
             mikrotik_backup.archive_contents, mikrotik_backup.archive_versions, \
             mikrotik_backup.archive_unreferenced, mikrotik_backup.archive_set_aside \
             TO archiving_beside_others",
            grants("beside_others").trim_end().trim_end_matches(';')
        ))
        .await;
    let store = open(&database.url_as("beside_others"), "x");
    let ensured = store.ensure_rights().await;
    ensured.expect("all that running needs");
    let store = open(&database.url_as("archiving_beside_others"), "x");
    let ensured = store.ensure_archive_rights().await;
    ensured.expect("all that archiving needs");
}

/// The names by which the program knows what is its own are those of what its migrations make.
#[tokio::test]
async fn what_is_ours_is_known_by_name() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let mut connection = PgConnection::connect(&database.url).await.expect("connect");
    // Indexes, the sequences of columns, and the types of tables go with their tables.
    let mut made: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_catalog.pg_class c \
         WHERE c.relnamespace = 'mikrotik_backup'::regnamespace AND c.relkind NOT IN ('i', 'I') \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                           WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
                             AND d.deptype IN ('a', 'i')) \
         UNION ALL SELECT DISTINCT p.proname || '()' FROM pg_catalog.pg_proc p \
         WHERE p.pronamespace = 'mikrotik_backup'::regnamespace \
         UNION ALL SELECT 'type ' || t.typname FROM pg_catalog.pg_type t \
         WHERE t.typnamespace = 'mikrotik_backup'::regnamespace AND t.typrelid = 0 AND t.typelem = 0",
    )
    .fetch_all(&mut connection)
    .await
    .expect("look");
    let functions = OUR_FUNCTIONS.iter().map(|name| format!("{name}()"));
    let mut known: Vec<String> = OUR_TABLES.iter().map(|name| (*name).to_owned()).collect();
    known.extend(functions);
    known.sort();
    made.sort();
    assert_eq!(known, made);
}

/// The tables are those of an administrator: that one is named.
#[tokio::test]
async fn an_owner_that_is_a_superuser_is_named() {
    let Some(database) = half_migrated("super_owner").await else {
        return;
    };
    database
        .sql(
            "ALTER ROLE super_owner SUPERUSER; CREATE ROLE half_super LOGIN; \
             GRANT USAGE ON SCHEMA mikrotik_backup TO half_super; \
             GRANT SELECT ON mikrotik_backup._sqlx_migrations TO half_super",
        )
        .await;
    assert_eq!(
        told(&database, "half_super").await,
        "database role \"half_super\" may not change what is in schema mikrotik_backup; run \
         `mikrotik-backup migrate` as role \"super_owner\", which owns it"
    );
    migrates(&database, "super_owner").await;
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let Some(database) = empty_database().await else {
        return;
    };
    database.sql("CREATE ROLE narrow_migrator LOGIN").await;
    let text = told(&database, "narrow_migrator").await;
    assert!(
        text.contains("GRANT CREATE ON DATABASE \"test_")
            && text.contains("TO \"narrow_migrator\""),
        "{text}"
    );
    assert!(text.contains("mikrotik-backup migrate"), "{text}");

    database.sql("CREATE SCHEMA mikrotik_backup").await;
    let text = told(&database, "narrow_migrator").await;
    assert!(
        text.contains("GRANT USAGE, CREATE ON SCHEMA mikrotik_backup"),
        "{text}"
    );

    database
        .sql("GRANT USAGE, CREATE ON SCHEMA mikrotik_backup TO narrow_migrator")
        .await;
    database
        .sql("CREATE TABLE devices (id uuid, tenant_id uuid, ip_address text)")
        .await;
    database
        .sql("CREATE TABLE credential_profiles (id uuid)")
        .await;
    let text = told(&database, "narrow_migrator").await;
    assert!(
        text.contains("ALTER TABLE devices ADD COLUMN ssh_host_key_fingerprint text"),
        "{text}"
    );
    let state = open(&database.url_as("narrow_migrator"), "x")
        .schema_state()
        .await
        .expect("look");
    assert_eq!(
        state,
        SchemaState::Behind {
            applied: 1,
            known: newest()
        },
        "each migration is whole or not there"
    );
}

/// A role may own our schema, but not the platform's tables: all works but the immediate hints,
/// and a later run by the owner brings those.
#[tokio::test]
async fn hints_are_installed_by_whoever_may() {
    let Some(database) = empty_database().await else {
        return;
    };
    database
        .store("owner")
        .migrate()
        .await
        .expect("migrate as the owner");
    database
        .sql(
            "DROP SCHEMA mikrotik_backup CASCADE; CREATE ROLE own_schema LOGIN; \
             CREATE SCHEMA mikrotik_backup AUTHORIZATION own_schema; \
             GRANT SELECT ON devices, credential_profiles TO own_schema",
        )
        .await;
    let migrated = open(&database.url_as("own_schema"), "x")
        .migrate()
        .await
        .expect("migrate");
    assert_eq!(migrated.applied, versions().len());
    let reason = migrated.hints_missing.expect("a reason");
    assert!(
        reason.contains("permission denied for table devices"),
        "{reason}"
    );
    let healed = database
        .store("owner")
        .migrate()
        .await
        .expect("migrate as the owner");
    assert_eq!(
        healed,
        Migrated {
            applied: 0,
            hints_missing: None
        }
    );
}

/// With the rights of the contract a current schema needs no DDL, also not from `migrate`.
#[tokio::test]
async fn a_current_schema_needs_no_right() {
    let Some(database) = fresh_database().await else {
        return;
    };
    database
        .sql(&format!(
            "CREATE ROLE narrow_current LOGIN; {}",
            grants("narrow_current")
        ))
        .await;
    let store = open(&database.url_as("narrow_current"), "x");
    assert_eq!(
        store.schema_state().await.expect("look"),
        SchemaState::Current
    );
    let migrated = store.migrate().await.expect("nothing to do");
    assert_eq!(
        migrated,
        Migrated {
            applied: 0,
            hints_missing: None
        }
    );
}

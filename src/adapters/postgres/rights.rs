//! What a database role may do, and which grant it lacks.

use std::borrow::Cow;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::migrate::{APPLY, MigrateError, READ, failed};
use super::{PostgresStore, error};
use crate::ports::StoreError;

/// What a role needs to read and change the schema, by a look at the catalogue that needs no
/// right itself.
const RIGHTS: &str = "SELECT current_user::text AS role, current_database()::text AS database, \
     has_database_privilege(current_database(), 'CREATE') AS create_schema, \
     n.oid IS NOT NULL AS schema_exists, c.oid IS NOT NULL AS table_exists, \
     coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS use_schema, \
     coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS create_tables, \
     coalesce(has_table_privilege(c.oid, 'SELECT'), false) AS read_table \
     FROM (VALUES (1)) AS one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'mikrotik_backup' \
     LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = '_sqlx_migrations'";

/// Every right that running needs, by the catalogue; one row per missing one. A platform may have
/// granted SELECT on our columns alone.
const MISSING: &str = "SELECT format('GRANT %s ON %s TO %I;', privilege, place, current_user) \
     FROM ( \
         SELECT 'USAGE', 'SCHEMA mikrotik_backup', has_schema_privilege('mikrotik_backup', 'USAGE') \
         UNION ALL SELECT p, 'mikrotik_backup.' || c.relname, has_table_privilege(c.oid, p) \
         FROM pg_catalog.pg_class c, \
              unnest(CASE WHEN c.relname IN ('_sqlx_migrations', 'device_settings') THEN ARRAY['SELECT'] \
                     ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) AS p \
         WHERE c.relnamespace = to_regnamespace('mikrotik_backup') AND c.relkind IN ('r', 'p') \
         UNION ALL SELECT 'SELECT', t, has_any_column_privilege(t, 'SELECT') \
         FROM unnest(ARRAY['devices', 'credential_profiles']) AS t \
         UNION ALL SELECT format('UPDATE (%s)', c), 'devices', has_column_privilege('devices', c, 'UPDATE') \
         FROM unnest(ARRAY['ssh_host_key_fingerprint', 'ssh_host_key_first_seen', \
                           'ssh_host_key_last_verified']) AS c \
         UNION ALL SELECT 'EXECUTE', \
                format('FUNCTION mikrotik_backup.%I(%s)', p.proname, oidvectortypes(p.proargtypes)), \
                has_function_privilege(p.oid, 'EXECUTE') \
         FROM pg_catalog.pg_proc p WHERE p.pronamespace = to_regnamespace('mikrotik_backup') \
           AND p.proname IN ('connections_to', 'is_held') \
     ) AS needed (privilege, place, granted) WHERE NOT granted";

/// The same for the `archive` role, which reads nothing of the platform's.
const MISSING_TO_ARCHIVE: &str = "SELECT format('GRANT %s ON %s TO %I;', privilege, place, current_user) \
     FROM ( \
         SELECT 'USAGE', 'SCHEMA mikrotik_backup', has_schema_privilege('mikrotik_backup', 'USAGE') \
         UNION ALL SELECT p, 'mikrotik_backup.' || c.relname, has_table_privilege(c.oid, p) \
         FROM pg_catalog.pg_class c, \
              unnest(CASE WHEN c.relname = '_sqlx_migrations' THEN ARRAY['SELECT'] \
                     ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) AS p \
         WHERE c.relnamespace = to_regnamespace('mikrotik_backup') AND c.relkind IN ('r', 'p') \
           AND (c.relname = '_sqlx_migrations' OR c.relname LIKE 'archive\\_%') \
     ) AS needed (privilege, place, granted) WHERE NOT granted";

/// The statements that give `role` every right that `run` needs, for the owner to run after
/// `migrate`.
pub fn grants(role: &str) -> String {
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    format!(
        "GRANT USAGE ON SCHEMA mikrotik_backup TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON mikrotik_backup.device_state, \
         mikrotik_backup.attempts, mikrotik_backup.attempt_steps, \
         mikrotik_backup.archive_devices, mikrotik_backup.archive_contents, \
         mikrotik_backup.archive_versions, mikrotik_backup.archive_unreferenced, \
         mikrotik_backup.archive_set_aside TO {role};\n\
         GRANT SELECT ON mikrotik_backup._sqlx_migrations, mikrotik_backup.device_settings TO {role};\n\
         GRANT SELECT ON devices, credential_profiles TO {role};\n\
         GRANT UPDATE (ssh_host_key_fingerprint, ssh_host_key_first_seen, \
         ssh_host_key_last_verified) ON devices TO {role};\n"
    )
}

impl PostgresStore {
    /// The `GRANT` statements that the role lacks for `run`; reads only. The schema must be
    /// current.
    pub async fn missing_grants(&self) -> Result<Vec<String>, StoreError> {
        self.run(
            || "read the rights of the database role".into(),
            async |connection| sqlx::query_scalar(MISSING).fetch_all(connection).await,
        )
        .await
    }

    /// Makes sure that the role has every right that `run` needs. The schema must be current.
    ///
    /// # Errors
    /// [`MigrateError::Privilege`] with the missing grants, or that the database is away.
    pub async fn ensure_rights(&self) -> Result<(), MigrateError> {
        self.ensured(self.missing_grants().await, "do all that running needs")
    }

    /// Makes sure that the role has every right that `archive` needs. The schema must be current.
    ///
    /// # Errors
    /// Like [`PostgresStore::ensure_rights`].
    pub async fn ensure_archive_rights(&self) -> Result<(), MigrateError> {
        let missing = self.run(
            || RIGHTS_OPERATION.into(),
            async |connection| {
                sqlx::query_scalar(MISSING_TO_ARCHIVE)
                    .fetch_all(connection)
                    .await
            },
        );
        self.ensured(missing.await, "do all that archiving needs")
    }

    fn ensured(
        &self,
        missing: Result<Vec<String>, StoreError>,
        action: &str,
    ) -> Result<(), MigrateError> {
        match missing {
            Ok(missing) if missing.is_empty() => Ok(()),
            Ok(missing) => Err(MigrateError::Privilege {
                role: self.options.get_username().to_owned(),
                action: action.to_owned(),
                remedy: format!("as the owner of the tables: {}", missing.join(" ")),
            }),
            Err(StoreError::Unavailable { source, .. }) => Err(MigrateError::Unavailable {
                operation: RIGHTS_OPERATION,
                source,
            }),
            Err(other) => Err(MigrateError::Failed {
                operation: RIGHTS_OPERATION,
                source: other.into(),
            }),
        }
    }
}

const RIGHTS_OPERATION: &str = "read the rights of the database role";

/// What the role may do.
pub(super) struct Rights {
    role: String,
    database: String,
    create_schema: bool,
    pub(super) schema_exists: bool,
    pub(super) table_exists: bool,
    pub(super) use_schema: bool,
    create_tables: bool,
    pub(super) read_table: bool,
}

impl Rights {
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, MigrateError> {
        let read = async {
            let row = sqlx::query(RIGHTS).fetch_one(connection).await?;
            Ok(Self {
                role: row.try_get("role")?,
                database: row.try_get("database")?,
                create_schema: row.try_get("create_schema")?,
                schema_exists: row.try_get("schema_exists")?,
                table_exists: row.try_get("table_exists")?,
                use_schema: row.try_get("use_schema")?,
                create_tables: row.try_get("create_tables")?,
                read_table: row.try_get("read_table")?,
            })
        };
        read.await.map_err(|error| failed(READ, error))
    }

    pub(super) fn quoted_role(&self) -> String {
        format!("\"{}\"", self.role.replace('"', "\"\""))
    }

    pub(super) fn lacks(
        &self,
        action: impl Into<String>,
        remedy: impl Into<String>,
    ) -> MigrateError {
        MigrateError::Privilege {
            role: self.role.clone(),
            action: action.into(),
            remedy: remedy.into(),
        }
    }

    /// Whether the role may apply migrations at all, before anything is tried.
    pub(super) fn may_change(&self) -> Result<(), MigrateError> {
        let role = self.quoted_role();
        let (action, grant) = match (self.schema_exists, self.create_schema, self.create_tables) {
            (false, false, _) => {
                let database = self.database.replace('"', "\"\"");
                (
                    "create schema mikrotik_backup",
                    format!("CREATE ON DATABASE \"{database}\""),
                )
            }
            (true, _, false) => (
                "create tables in schema mikrotik_backup",
                "USAGE, CREATE ON SCHEMA mikrotik_backup".to_owned(),
            ),
            (false, true, _) | (true, _, true) => return Ok(()),
        };
        Err(self.lacks(
            action,
            format!("{BY_THE_OWNER}, or: GRANT {grant} TO {role}"),
        ))
    }

    pub(super) fn explain(&self, error: sqlx::migrate::MigrateError) -> MigrateError {
        use sqlx::migrate::MigrateError as Sqlx;
        match error {
            Sqlx::Execute(source) | Sqlx::ExecuteMigration(source, _)
                if error::is_privilege(&source) =>
            {
                let said = source
                    .as_database_error()
                    .map_or(Cow::Borrowed("permission denied"), |error| {
                        Cow::Owned(error.message().to_owned())
                    });
                self.lacks(format!("migrate the schema ({said})"), BY_THE_OWNER)
            }
            Sqlx::Execute(source) | Sqlx::ExecuteMigration(source, _) => failed(APPLY, source),
            other => MigrateError::Failed {
                operation: APPLY,
                source: other.into(),
            },
        }
    }
}

const BY_THE_OWNER: &str =
    "run `mikrotik-backup migrate` with the role that owns the database's tables";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_quoted_in_grants() {
        assert!(grants("od\"d").contains("TO \"od\"\"d\";"));
    }
}

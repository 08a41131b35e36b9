//! What a database role may do, and which grant it lacks.

use std::borrow::Cow;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::migrate::{APPLY, MigrateError, READ, failed};
use super::{PostgresStore, error};
use crate::ports::StoreError;

/// Our own tables in schema `mikrotik_backup`, with their sequences, indexes and types. Whatever else is
/// there is somebody else's.
pub const OUR_TABLES: [&str; 10] = [
    "_sqlx_migrations",
    "archive_contents",
    "archive_devices",
    "archive_set_aside",
    "archive_unreferenced",
    "archive_versions",
    "attempt_steps",
    "attempts",
    "device_settings",
    "device_state",
];

/// Our own functions in schema `mikrotik_backup`.
pub const OUR_FUNCTIONS: [&str; 7] = [
    "connections_to",
    "hint_device_edited",
    "hint_profile_edited",
    "hint_settings_edited",
    "install_change_hints",
    "is_held",
    "overview",
];

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

/// Whose the tables `$1` and functions `$2` are as far as they are there, by the catalogue: all owners,
/// whether the role lacks the rights of one, and which of them may change everything. Only what is ours
/// counts: what others keep in the schema no migration touches.
const OWNERS: &str = "WITH owners AS ( \
         SELECT r.oid, r.rolname::text AS name, r.rolsuper, \
                pg_has_role(current_user, r.oid, 'USAGE') AS ours \
         FROM pg_catalog.pg_roles r WHERE r.oid IN ( \
             SELECT c.relowner FROM pg_catalog.pg_class c \
             WHERE c.relnamespace = to_regnamespace('mikrotik_backup') AND c.relkind IN ('r', 'p') \
               AND c.relname = ANY($1) \
             UNION ALL SELECT p.proowner FROM pg_catalog.pg_proc p \
             WHERE p.pronamespace = to_regnamespace('mikrotik_backup') AND p.proname = ANY($2)) \
     ) SELECT ARRAY(SELECT o.name FROM owners o ORDER BY 1) AS names, \
         EXISTS (SELECT FROM owners o WHERE NOT o.ours) AS of_others, \
         (SELECT c.name FROM owners c \
          WHERE has_schema_privilege(c.oid, to_regnamespace('mikrotik_backup')::oid, 'USAGE') \
            AND has_schema_privilege(c.oid, to_regnamespace('mikrotik_backup')::oid, 'CREATE') \
            AND NOT EXISTS ( \
                SELECT FROM owners o WHERE NOT pg_has_role(c.oid, o.oid, 'USAGE')) \
          ORDER BY c.rolsuper, 1 LIMIT 1) AS suited";

/// Every right that running needs, by the catalogue; one row per missing one of the tables `$1`. A platform
/// may have granted SELECT on our columns alone.
const MISSING: &str = "SELECT format('GRANT %s ON %s TO %I;', privilege, place, current_user) \
     FROM ( \
         SELECT 'USAGE', 'SCHEMA mikrotik_backup', has_schema_privilege('mikrotik_backup', 'USAGE') \
         UNION ALL SELECT p, 'mikrotik_backup.' || c.relname, has_table_privilege(c.oid, p) \
         FROM pg_catalog.pg_class c, \
              unnest(CASE WHEN c.relname IN ('_sqlx_migrations', 'device_settings') THEN ARRAY['SELECT'] \
                     ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) AS p \
         WHERE c.relnamespace = to_regnamespace('mikrotik_backup') AND c.relkind IN ('r', 'p') \
           AND c.relname = ANY($1) \
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
           AND c.relname = ANY($1) AND (c.relname = '_sqlx_migrations' OR c.relname LIKE 'archive\\_%') \
     ) AS needed (privilege, place, granted) WHERE NOT granted";

/// The statements that give `role` every right that `run` needs, for the owner to run after
/// `migrate`.
pub fn grants(role: &str) -> String {
    let role = quoted(role);
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
            async |connection| {
                sqlx::query_scalar(MISSING)
                    .bind(OUR_TABLES)
                    .fetch_all(connection)
                    .await
            },
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
                    .bind(OUR_TABLES)
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
        quoted(&self.role)
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

    /// Whether migrations have been applied, and the role may not see which.
    pub(super) fn sees_nothing(&self) -> bool {
        self.schema_exists && self.table_exists && !(self.use_schema && self.read_table)
    }

    /// Whether the role may apply migrations at all, before anything is tried.
    pub(super) fn may_change(&self, owners: &Owners) -> Result<(), MigrateError> {
        if owners.of_others {
            // To change a table, or to replace a function, is its owner's right and cannot be granted; and
            // to be a member of the owner is to have its rights over the platform's tables, too.
            return Err(self.lacks("change what is in schema mikrotik_backup", owners.migrate()));
        }
        let create_tables = self.use_schema && self.create_tables;
        let (action, grant) = match (self.schema_exists, self.create_schema, create_tables) {
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
            format!(
                "{BY_THE_OWNER}, or: GRANT {grant} TO {}",
                self.quoted_role()
            ),
        ))
    }

    /// The role may not even see how far the schema is: what makes it current, and lets the role see
    /// that it is.
    pub(super) fn blind(&self, owners: &Owners) -> MigrateError {
        let remedy = format!(
            "{}, and let this role see it: {}",
            owners.migrate(),
            self.sight()
        );
        self.lacks("read mikrotik_backup._sqlx_migrations", remedy)
    }

    /// The statements that let the role see how far the schema is.
    pub(super) fn sight(&self) -> String {
        let role = self.quoted_role();
        format!(
            "GRANT USAGE ON SCHEMA mikrotik_backup TO {role}; GRANT SELECT ON \
             mikrotik_backup._sqlx_migrations TO {role}"
        )
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

fn quoted(role: &str) -> String {
    format!("\"{}\"", role.replace('"', "\"\""))
}

/// Whose the tables and functions of the schema are, as far as they are there.
pub(super) struct Owners {
    names: Vec<String>,
    /// The role does not have the rights of all of them.
    of_others: bool,
    /// The owner that may change everything.
    suited: Option<String>,
}

impl Owners {
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, MigrateError> {
        let read = async {
            let row = sqlx::query(OWNERS)
                .bind(OUR_TABLES)
                .bind(OUR_FUNCTIONS)
                .fetch_one(connection)
                .await?;
            Ok(Self {
                names: row.try_get("names")?,
                of_others: row.try_get("of_others")?,
                suited: row.try_get("suited")?,
            })
        };
        read.await.map_err(|error| failed(READ, error))
    }

    /// How the schema is made current.
    fn migrate(&self) -> String {
        const RUN: &str = "run `mikrotik-backup migrate` as";
        let names: Vec<_> = self.names.iter().map(|name| quoted(name)).collect();
        match (&self.suited, names.as_slice()) {
            (Some(owner), _) => format!("{RUN} role {}, which owns it", quoted(owner)),
            (None, []) => format!("{RUN} a superuser"),
            (None, [owner]) => format!(
                "{RUN} a superuser, for role {owner}, which owns it, may not create tables in it"
            ),
            (None, owners) => format!(
                "{RUN} a superuser, or as a role other than the service's that is a member of {}, \
                 which own it",
                owners.join(" and ")
            ),
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

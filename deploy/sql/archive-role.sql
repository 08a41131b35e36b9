-- The role that `mikrotik-backup archive` runs as: the tables of the archive, and nothing else. It
-- reads no device and no credential.
--
-- Run it after `mikrotik-backup migrate`, and again after a version that adds tables to the archive
-- (the service names what it lacks), as a role that may create roles and grants on these tables:
--
--   psql -v ON_ERROR_STOP=1 --single-transaction -f archive-role.sql "$DATABASE_URL"
--
-- then give the role a password: `\password mikrotik_backup_archive` keeps it out of history and
-- logs. Running it again changes nothing else.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mikrotik_backup_archive') THEN
        CREATE ROLE mikrotik_backup_archive LOGIN
            NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
    END IF;
EXCEPTION
    -- Two databases of one server may be prepared at the same time.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- A hardened server takes this away from PUBLIC.
DO $$
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO mikrotik_backup_archive', current_database());
END
$$;

GRANT USAGE ON SCHEMA mikrotik_backup TO mikrotik_backup_archive;
GRANT SELECT ON mikrotik_backup._sqlx_migrations TO mikrotik_backup_archive;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    mikrotik_backup.archive_devices,
    mikrotik_backup.archive_contents,
    mikrotik_backup.archive_versions,
    mikrotik_backup.archive_unreferenced,
    mikrotik_backup.archive_set_aside
    TO mikrotik_backup_archive;

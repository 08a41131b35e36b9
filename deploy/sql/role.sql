-- The role that the service runs as, with what it needs and nothing else.
--
-- Run it once, after the first `mikrotik-backup migrate`, as a role that may create roles and
-- grants on these tables (a superuser will do), with the platform's tables on the search path:
--
--   psql -v ON_ERROR_STOP=1 --single-transaction -f role.sql "$DATABASE_URL"
--
-- then give the role a password: `\password mikrotik_backup` keeps it out of history and logs.
-- Running it again changes nothing; tables that later migrations add are covered.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mikrotik_backup') THEN
        CREATE ROLE mikrotik_backup LOGIN
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
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO mikrotik_backup', current_database());
    -- regclass finds the platform's tables on the search path, as the service does.
    EXECUTE format(
        'GRANT USAGE ON SCHEMA %s TO mikrotik_backup',
        (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'devices'::regclass)
    );
END
$$;

-- The platform's tables: read them, and write what was seen of a host key.
GRANT SELECT ON devices, credential_profiles TO mikrotik_backup;
GRANT UPDATE (ssh_host_key_fingerprint, ssh_host_key_first_seen, ssh_host_key_last_verified)
    ON devices TO mikrotik_backup;

-- Its own tables: rows, but no DDL.
GRANT USAGE ON SCHEMA mikrotik_backup TO mikrotik_backup;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mikrotik_backup TO mikrotik_backup;
-- This one is the operators'.
REVOKE INSERT, UPDATE, DELETE ON mikrotik_backup.device_settings FROM mikrotik_backup;

-- Tables to come belong to whoever migrates, which is whoever owns the schema.
DO $$
BEGIN
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA mikrotik_backup '
        'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO mikrotik_backup',
        (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'mikrotik_backup')
    );
END
$$;

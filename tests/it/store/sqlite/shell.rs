//! An operator of a SQLite store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use mikrotik_backup::adapters::sqlite::DATABASE_FILE;
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::DeviceId;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Column, Row, TypeInfo, ValueRef};
use uuid::Uuid;

use super::contract::{Operator, Value};
use crate::services::postgres::NewDevice;

/// An operator with the `sqlite3` shell: a connection that knows nothing of the service.
pub struct Shell(SqlitePool);

impl Shell {
    pub fn on(data_dir: &Path) -> Self {
        Self::connect(data_dir, false)
    }

    /// On a database that is another program's.
    pub fn making(data_dir: &Path) -> Self {
        Self::connect(data_dir, true)
    }

    /// As a shell that ends.
    pub async fn close(self) {
        self.0.close().await;
    }

    fn connect(data_dir: &Path, create: bool) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(data_dir.join(DATABASE_FILE))
            .create_if_missing(create)
            .busy_timeout(Duration::from_secs(10));
        Self(
            SqlitePoolOptions::new()
                .max_connections(1)
                .connect_lazy_with(options),
        )
    }

    pub async fn sql(&self, statements: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&self.0)
            .await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    pub async fn text(&self, query: &str) -> String {
        let text = sqlx::query_scalar(AssertSqlSafe(format!("SELECT CAST(({query}) AS TEXT)")))
            .fetch_one(&self.0)
            .await;
        text.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The row of `table` about a device, each column as text.
    async fn columns(&self, table: &str, id: DeviceId) -> BTreeMap<String, Option<String>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT * FROM {table} WHERE device_id = ?1"
        )))
        .bind(id.to_string())
        .fetch_optional(&self.0)
        .await
        .expect("read a row");
        let Some(row) = row else {
            return BTreeMap::new();
        };
        let text = |index: usize| {
            let value = row.try_get_raw(index).expect("a column");
            if value.is_null() {
                return None;
            }
            Some(match value.type_info().name() {
                "INTEGER" => row.get::<i64, _>(index).to_string(),
                _ => row.get::<String, _>(index),
            })
        };
        let columns = row.columns().iter();
        columns
            .map(|column| (column.name().to_owned(), text(column.ordinal())))
            .collect()
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Text(text) => format!("'{text}'"),
        Value::Int(number) => number.to_string(),
        Value::Bytes(bytes) => format!("x'{}'", hex::encode(bytes)),
        Value::Id(id) => format!("'{id}'"),
    }
}

#[async_trait]
impl Operator for Shell {
    async fn insert(&self, device: NewDevice) -> DeviceId {
        sqlx::query(
            "INSERT INTO devices (id, tenant_id, hostname, ip_address, ssh_port, device_type, \
             routeros_version, encrypted_credentials, encrypted_credentials_transit, \
             credential_profile_id, ssh_host_key_fingerprint) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .bind(device.id.to_string())
        .bind(device.tenant.to_string())
        .bind(device.hostname)
        .bind(device.ip_address)
        .bind(device.ssh_port)
        .bind(device.device_type)
        .bind(device.routeros_version)
        .bind(device.encrypted_credentials)
        .bind(device.encrypted_credentials_transit)
        .bind(device.credential_profile_id.map(|id| id.to_string()))
        .bind(device.ssh_host_key_fingerprint)
        .execute(&self.0)
        .await
        .expect("insert a device");
        DeviceId(device.id)
    }

    async fn insert_profile(&self, sealed: Option<Vec<u8>>, transit: Option<String>) -> Uuid {
        let id: String = sqlx::query_scalar(
            "INSERT INTO credential_profiles (encrypted_credentials, encrypted_credentials_transit) \
             VALUES (?1, ?2) RETURNING id",
        )
        .bind(sealed)
        .bind(transit)
        .fetch_one(&self.0)
        .await
        .expect("insert a profile");
        let id = Uuid::parse_str(&id).expect("the default is a UUID");
        assert_eq!(id.get_version_num(), 4);
        id
    }

    async fn set(&self, table: &'static str, id: Uuid, column: &'static str, value: Value) {
        let value = literal(&value);
        let statement = format!("UPDATE {table} SET {column} = {value} WHERE id = '{id}'");
        let done = sqlx::query(AssertSqlSafe(statement)).execute(&self.0).await;
        assert_eq!(done.expect("an edit").rows_affected(), 1);
    }

    async fn set_settings(
        &self,
        id: DeviceId,
        seconds: Option<i32>,
        algorithms: Option<&'static str>,
    ) {
        sqlx::query(
            "INSERT INTO device_settings VALUES (?1, ?2, ?3) ON CONFLICT (device_id) DO UPDATE SET \
             command_timeout_seconds = excluded.command_timeout_seconds, \
             ssh_algorithms = excluded.ssh_algorithms",
        )
        .bind(id.0.to_string())
        .bind(seconds)
        .bind(algorithms)
        .execute(&self.0)
        .await
        .expect("set what differs for a device");
    }

    async fn delete(&self, id: DeviceId) {
        sqlx::query("DELETE FROM devices WHERE id = ?1")
            .bind(id.to_string())
            .execute(&self.0)
            .await
            .expect("delete");
    }

    async fn state(&self, id: DeviceId) -> BTreeMap<String, Option<String>> {
        self.columns("device_state", id).await
    }

    async fn overview(&self, id: DeviceId) -> BTreeMap<String, Option<String>> {
        self.columns("overview", id).await
    }

    async fn count_steps(&self, id: AttemptId) -> u64 {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM attempt_steps WHERE attempt_id = ?1")
                .bind(id.to_string())
                .fetch_one(&self.0)
                .await
                .expect("count");
        count as u64
    }
}
